"""The language of NSSRequire, and its variables over a TLS session."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import ConfigurationError
from mailsec.model.session import TlsInfo
from mailsec.rules.expressions import compile_expression
from mailsec.rules.session_variables import NAMES, SessionFacts, is_variable
from tests.tls.issuing import Issuer

NOW = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)
ALICE = Issuer(at=NOW).issue("client.example", addresses=("alice@example.org",), purpose="client", common_name="Alice")
TLS = TlsInfo(
    "TLSv1.3",
    "TLS_AES_256_GCM_SHA384",
    256,
    peer_certificate=ALICE.der,
    peer_verified=True,
    server_name="gw.example.org",
    group="X25519MLKEM768",
)
FACTS = SessionFacts(TLS, "192.0.2.1", "alice", "gw.example.org", NOW)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('%{SSL_PROTOCOL} == "TLSv1.3"', True),
        ("%{SSL_PROTOCOL} ne 'TLSv1.3'", False),
        ("%{SSL_CIPHER_USEKEYSIZE} >= 128", True),
        # Lengths first, then octets: right for numbers.
        ("%{SSL_CIPHER_USEKEYSIZE} > 99", True),
        ("%{SSL_CIPHER_USEKEYSIZE} lt 1000", True),
        ('%{SSL_CLIENT_VERIFY} eq "SUCCESS" and %{SSL_CLIENT_S_DN_CN} in {"Bob", "Alice"}', True),
        ('%{SSL_CLIENT_VERIFY} == "NONE" or %{SSL_CLIENT_VERIFY} == "FAILED"', False),
        ('not (%{HTTPS} == "off") && !(%{HTTPS} == "off")', True),
        ("%{SSL_CLIENT_S_DN} =~ m/^cn=alice$/i", True),
        ("%{SSL_CLIENT_S_DN} =~ m/^cn=alice$/", False),
        ("%{SSL_CIPHER} !~ m#CBC#", True),
        ('%{SSL_CLIENT_SAN_Email_0} == "alice@example.org" and %{SSL_CLIENT_SAN_Email_1} == ""', True),
        ('%{SSL_CLIENT_SAN_DNS_0} == "client.example"', True),
        ("%{SSL_CLIENT_V_REMAIN} == 90", True),
        ("%{SSL_CLIENT_I_DN_CN} == 'Revoking CA'", True),
        ("%{SSL_SERVER_S_DN_CN} == ''", True),
        ('%{REMOTE_ADDR} == "192.0.2.1" and %{REMOTE_USER} == "alice"', True),
        ("%{TIME_HOUR} >= 8 and %{TIME_HOUR} <= 18 and %{TIME_WDAY} >= 1 and %{TIME_WDAY} <= 5", True),
        ("true and not false", True),
        # CVE-2015-3276's kin: "and" binds closer than "or".
        ("true or false and false", True),
        ("(true or false) and false", False),
        ("not true or true", True),
    ],
)
def test_expressions(text, holds):
    assert compile_expression(text, is_variable)(FACTS) is holds


@pytest.mark.parametrize(
    "text",
    ["", "true true", "%{SSL_PROTOCOL}", "%{SSL_PROTOCOL} ==", "== 1", "%{NO_SUCH} == 1", "%{ENV:HOME} == 1", "(true", "true)", "1 in 2", "1 in {2",
     '1 =~ "x"', "1 =~ m/(a*)*/", 'file("/etc/passwd") == 1', "!", "a == b", '"x', "%{", "1 = = 2", "true and", "x" * 3000,
     "(" * 60 + "true" + ")" * 60,
     "not " * 60 + "true"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ConfigurationError) as caught:
        compile_expression(text, is_variable)
    assert caught.value.hint


def test_without_tls_every_variable_is_there_and_none_says_yes():
    facts = SessionFacts(peer="192.0.2.1")
    for name in NAMES:
        assert is_variable(name)
        assert facts(name) in ("", "off", "NONE", "192.0.2.1")


def test_unverified_certificate_is_failed_whatever_stands_in_it():
    facts = SessionFacts(TlsInfo("TLSv1.3", "x", peer_certificate=ALICE.der))
    assert facts("SSL_CLIENT_VERIFY") == "FAILED" and facts("SSL_CLIENT_S_DN_CN") == "Alice"
    assert SessionFacts(TlsInfo("TLSv1.3", "x"))("SSL_CLIENT_VERIFY") == "NONE"


@given(st.binary(max_size=60))
def test_any_octets_for_a_certificate_give_values_and_no_error(octets):
    facts = SessionFacts(TlsInfo("TLSv1.3", "x", peer_certificate=octets, own_certificate=octets), at=NOW)
    for name in NAMES:
        assert isinstance(facts(name), str)


@given(st.text(alphabet="%{}SL_AC\"'mi/()!&|=<>~ orandnt1,", max_size=40))
def test_any_text_is_an_expression_or_an_error_of_ours(text):
    with contextlib.suppress(ConfigurationError):
        compile_expression(text, is_variable)(FACTS)
