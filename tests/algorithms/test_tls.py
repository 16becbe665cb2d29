"""TLS by name: lists as NSS and OpenSSL write them, profiles, and what no list brings in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from mailsec.algorithms.tls import GROUPS, PROFILES, SUITES, read_ciphers, read_protocols, terms_of
from mailsec.errors import ConfigurationError
from mailsec.model.tls import TlsPolicy
from mailsec.net.tls_context import make_context
from mailsec.net.tls_library import GROUPS_CAN_BE_SET, known_groups

BROKEN = re.compile(r"NULL|RC4|DES|EXP|MD5|ADH|AECDH|PSK|SRP|IDEA|SEED|RC2")


def offered(policy: TlsPolicy) -> list[str]:
    """What a context of this policy would say."""
    return SSL.Connection(make_context(policy), None).get_cipher_list()


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_hold_nothing_weak(profile):
    names = offered(TlsPolicy(profile))
    weak = {suite.openssl for suite in SUITES if suite.weakness}
    assert names and not weak & set(names)
    if profile == "fips-algorithms":
        assert not any("CHACHA" in name for name in names)


@pytest.mark.parametrize("suite", [one for one in SUITES if not one.weakness.startswith("never")], ids=lambda one: one.nss)
def test_a_suite_is_the_same_by_each_of_its_names(suite):
    asked = {read_ciphers(f"+{suite.nss},"), read_ciphers(suite.nss), read_ciphers(suite.openssl), read_ciphers(f"{suite.iana},")}
    assert len(asked) == 1
    older, newer = asked.pop()
    assert (newer == (suite.openssl,)) if suite.tls13 else (older == suite.openssl)


@pytest.mark.parametrize("suite", [one for one in SUITES if one.weakness.startswith("never")], ids=lambda one: one.nss)
def test_broken_suites_are_refused_by_each_of_their_names(suite):
    for text in (f"+{suite.nss},", suite.nss, f"{suite.openssl}:HIGH"):
        with pytest.raises(ConfigurationError, match="is not used, whatever a list says"):
            read_ciphers(text)


def test_nss_lists_begin_with_nothing_and_take_out_what_minus_says():
    older, newer = read_ciphers("+ecdhe_rsa_aes_128_gcm_sha_256, +aes_128_gcm_sha_256,-ecdhe_rsa_aes_128_gcm_sha_256,+rsa_aes_128_sha")
    assert (older, newer) == ("AES128-SHA", ("TLS_AES_128_GCM_SHA256",))
    for text in ("+nonsense,", "-rsa_aes_128_sha,", ",", "+,"):
        with pytest.raises(ConfigurationError):
            read_ciphers(text)


@given(
    st.lists(
        st.sampled_from(
            ["ALL", "eNULL", "aNULL", "COMPLEMENTOFALL", "RC4", "3DES", "+RC4", "!AES", "-ALL", "HIGH", "LOW", "EXPORT", "PSK", "kRSA"]
        ),
        max_size=6,
    )
)
def test_no_list_of_openssl_brings_in_what_is_broken(words):
    """CVE-2015-5244 and its kin: what was switched off for good comes back by another word."""
    try:
        names = offered(TlsPolicy(ciphers=":".join(words)))
    except ConfigurationError:
        return
    assert not [name for name in names if BROKEN.search(name)]


def test_versions_are_a_range_without_holes():
    assert read_protocols(("TLSv1.2",)) == ("TLSv1.2", "TLSv1.2")
    assert read_protocols(("TLSv1.3", "TLSv1.2")) == read_protocols(("all",)) == ("TLSv1.2", "TLSv1.3")
    for name in ("SSLv2", "SSLv3", "TLSv1", "TLSv1.0", "TLSv1.1", "TLSv2", ""):
        with pytest.raises(ConfigurationError):
            read_protocols((name,))
    assert terms_of(TlsPolicy("modern")).minimum == "TLSv1.3"


def test_groups_that_are_named_must_be_there():
    with pytest.raises(ConfigurationError):
        terms_of(TlsPolicy(groups=("P-265",)))
    assert GROUPS_CAN_BE_SET, "this pyOpenSSL does not let groups be set: the profiles' groups are the library's own"
    assert "X25519MLKEM768" in known_groups(GROUPS)
