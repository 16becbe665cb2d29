"""Lists whose entries belong to several issuers are read whole: every entry is found for the right issuer, and odd ones are refused."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.errors import Asn1Error
from mailsec.x509.crl import CertificateList, load_crl
from mailsec.x509.names import Name

AT = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
NAMES = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("List maker", "One", "Two", "Three " + "x" * 50)]
NAMES[3] = x509.Name([*NAMES[3], x509.NameAttribute(NameOID.ORGANIZATION_NAME, "An entry of more than 127 octets")])
SCOPE = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)


def listed(*entries, critical: bool = True, scope=SCOPE) -> CertificateList:
    """`entries`: (serial, index of the issuer that it names or None, reason or None)."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(NAMES[0]).last_update(AT).next_update(AT + dt.timedelta(days=1))
    for serial, named, reason in entries:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(AT)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), False)
        if named is not None:
            entry = entry.add_extension(x509.CertificateIssuer([x509.DirectoryName(NAMES[named])]), critical)
        builder = builder.add_revoked_certificate(entry.build())
    builder = builder.add_extension(x509.CRLNumber(1), False).add_extension(scope, True)
    return load_crl(builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER))


def name(index: int) -> Name:
    return Name(NAMES[index].public_bytes())


ENTRIES = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 300), st.integers(1, 2**159 - 1)),
        st.sampled_from([None, 0, 1, 2, 3]),
        st.sampled_from([None, x509.ReasonFlags.key_compromise, x509.ReasonFlags.certificate_hold]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda entry: entry[0],
)


@settings(max_examples=60, deadline=None)
@given(ENTRIES)
def test_every_entry_is_found_for_its_issuer_and_for_no_other(entries):
    # One that names an issuer makes the list one that is read whole.
    crl = listed(*entries, (2**158, 3, None))
    current = 0
    for serial, named, reason in entries:
        current = current if named is None else named
        for index in range(len(NAMES)):
            found = crl.find(serial, name(index))
            assert (found is not None) is (index == current)
            if found is not None:
                assert (found.serial, found.revoked_at, found.reason) == (serial, AT, reason.value if reason else "unspecified")


def test_attack_the_same_number_of_another_issuer_stands_first():
    crl = listed((7, 1, None), (7, 2, x509.ReasonFlags.key_compromise))
    assert crl.find(7, name(1)).reason == "unspecified" and crl.find(7, name(2)).reason == "keyCompromise"
    assert crl.find(7, name(0)) is None and crl.find(8, name(1)) is None


def test_an_indirect_list_whose_maker_forgot_to_mark_the_issuers_critical():
    crl = listed((7, 1, None), (8, None, None), critical=False)
    assert crl.find(7, name(1)) is not None and crl.find(8, name(1)) is not None, "listed is listed"
    assert crl.find(7, name(0)) is None


def test_an_entry_with_a_length_of_several_octets():
    crl = listed((7, 3, x509.ReasonFlags.key_compromise), (8, None, None))
    assert b"\x30\x81" in crl.der[crl.entries[0] : crl.entries[1]]
    assert crl.find(7, name(3)) is not None and crl.find(8, name(3)) is not None


ODD = listed((7, 1, x509.ReasonFlags.key_compromise), (300, None, None), (2**150, 2, None))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_attack_changed_octets_end_in_an_answer_or_in_an_asn1_error(data):
    start, end = ODD.entries
    octets = bytearray(ODD.der)
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(start, end - 1))] = data.draw(st.integers(0, 255))
    crl = load_crl(bytes(octets))
    try:
        for serial in (7, 300, 2**150):
            crl.find(serial, name(1))
    except Asn1Error:
        pass


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x02\x02\x01\x2c", b"\x02\x02\x00\x2c"),
        (b"\x02\x02\x01\x2c\x17", b"\x02\x02\x01\x2c\x16"),
        (b"\x02\x02\x01\x2c", b"\x03\x02\x01\x2c"),
    ],
    ids=["a number with octets too many", "no time", "no number"],
)
def test_a_list_with_an_entry_that_is_none_is_not_used(old, new):
    assert ODD.der.count(old) == 1
    with pytest.raises(Asn1Error):
        load_crl(ODD.der.replace(old, new)).find(7, name(1))
