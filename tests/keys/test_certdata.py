"""Mozilla's list of roots as a file: what is trusted for e-mail, until when, and that odd lists trust nobody."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import InputError
from mailsec.keys.certdata import is_certdata, read_certdata
from mailsec.x509.issue import make_ca, make_key

AT = datetime(2026, 5, 1, tzinfo=UTC)
DER = make_ca(common_name="Root", key=make_key("ec-p256"), at=AT, random=os.urandom)


def octal(octets: bytes) -> str:
    text = "".join(f"\\{octet:03o}" for octet in octets)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(["MULTILINE_OCTAL", *lines, "END"])


def listed(name: str, der: bytes, email: str, after: str = "CK_BBOOL CK_FALSE") -> str:
    return f"""
#
# Certificate "{name}"
CKA_CLASS CK_OBJECT_CLASS CKO_CERTIFICATE
CKA_TOKEN CK_BBOOL CK_TRUE
CKA_LABEL UTF8 "{name}"
CKA_VALUE {octal(der)}
CKA_NSS_EMAIL_DISTRUST_AFTER {after}

# Trust for "{name}"
CKA_CLASS CK_OBJECT_CLASS CKO_NSS_TRUST
CKA_LABEL UTF8 "{name}"
CKA_CERT_SHA1_HASH {octal(hashlib.sha1(der).digest())}
CKA_TRUST_SERVER_AUTH CK_TRUST CKT_NSS_TRUSTED_DELEGATOR
CKA_TRUST_EMAIL_PROTECTION CK_TRUST {email}
"""


@pytest.mark.parametrize(
    ("word", "letter"),
    [("CKT_NSS_TRUSTED_DELEGATOR", "C"), ("CKT_NSS_NOT_TRUSTED", "p"), ("CKT_NSS_MUST_VERIFY_TRUST", ""), ("CKT_NSS_VALID", "")],
)
def test_the_trust_bit_for_email_counts_and_no_other(word, letter):
    data = ("BEGINDATA\n" + listed("A “root”", DER, word)).encode()
    assert is_certdata(data)
    (root,) = read_certdata(data)
    assert (root.name, root.der, root.email, root.distrust_after) == ("A “root”", DER, letter, None)


def test_distrust_after_is_an_instant():
    (root,) = read_certdata(listed("x", DER, "CKT_NSS_TRUSTED_DELEGATOR", octal(b"220831000000Z")).encode())
    assert root.distrust_after == datetime(2022, 8, 31, tzinfo=UTC)


def test_attack_trust_for_another_certificate_is_not_for_this_one():
    other = listed("x", DER, "CKT_NSS_TRUSTED_DELEGATOR").replace(octal(hashlib.sha1(DER).digest()), octal(b"x" * 20))
    assert [root.email for root in read_certdata(other.encode())] == [""]


@given(st.binary(max_size=200))
def test_any_octets_end_in_roots_or_one_of_our_errors(octets):
    data = listed("x", DER, "CKT_NSS_TRUSTED_DELEGATOR").encode()
    place = len(octets) * 7 % len(data)
    for text in (octets, data[:place] + octets + data[place:], data[:place]):
        try:
            read_certdata(text)
        except InputError:
            pass
