"""Forgers who want a pass for what nobody signed: by a second reader, by a second From, by somebody else's attachment, by work for us.

The classes of "Johnny, you are fired!" (USENIX Security 2019) and "Re: What's up Johnny?" (ACNS 2019), at S/MIME. Each test first sees
that the message without the trick is trusted.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.limits import Limits
from mailsec.model.octets import BytesOctets
from mailsec.model.verdict import Revocation, SmimeWord, Verdict
from mailsec.pki.anchors import anchor_set
from mailsec.pki.cache import PathCache
from mailsec.pki.path import PathOptions
from mailsec.smime.assess import assess
from mailsec.smime.repair import without_last_lines
from mailsec.smime.unprotect import unprotect_message
from mailsec.testing.memory import MemoryScratch

PLAIN = b"From: alice@example.org\r\nTo: bob@example.org\r\nSubject: x\r\nContent-Type: text/plain\r\n\r\nI owe you nothing.\r\n"


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


def signed(people: SimpleNamespace, smime: SimpleNamespace, data: bytes = PLAIN, **more: object) -> tuple[bytes, bytes]:
    """A message that Alice signed, trusted as it is, and its boundary."""
    written = smime.sign(data, people.alice, **more)
    assert smime.judge(written, people.ca).trusted
    found = re.search(rb'boundary="([^"]+)"', written)
    return written, found[1] if found else b""


FORGED = b"Content-Type: text/plain\r\n\r\nI owe you 10,000.\r\n"


def test_a_comment_in_the_boundary_that_other_readers_take_for_a_part_of_it(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written, mark = signed(people, smime)
    label = b'boundary="' + mark + b'"'
    commented = written.replace(label, b"boundary=" + b"A(x)").replace(b"--" + mark, b"--A")
    fake = b"--A(x)\r\n" + FORGED + b"\r\n--A(x)--\r\n"
    body = commented.index(b"\r\n\r\n") + 4
    verdict = smime.judge(commented[:body] + fake + commented[body:], people.ca)
    assert verdict.signature_valid and not verdict.trusted and "ambiguous-structure" in codes(verdict)
    assert verdict.word is SmimeWord.POLICY


@pytest.mark.parametrize("where", ["preamble", "epilogue", "signature"])
def test_a_second_set_of_parts_for_readers_with_another_boundary(people: SimpleNamespace, smime: SimpleNamespace, where: str) -> None:
    written, mark = signed(people, smime)
    fake = b"\r\n--" + mark + b"-other\r\n" + FORGED + b"\r\n--" + mark + b"-other--\r\n"
    if where == "preamble":
        body = written.index(b"\r\n\r\n") + 4
        forged = written[:body] + fake + written[body:]
    elif where == "epilogue":
        forged = written + fake
    else:
        # The signature as raw DER: nothing reads the octets behind it, but another reader may look for parts there.
        head, start, rest = written.partition(b"Content-Type: application/pkcs7-signature")
        encoded, end, tail = rest.partition(b"\r\n\r\n")[2].partition(b"--" + mark)
        der = base64.b64decode(encoded)
        forged = head + start + b"\r\nContent-Transfer-Encoding: binary\r\n\r\n" + der + fake + b"\r\n" + end + tail
    verdict = smime.judge(forged, people.ca)
    assert verdict.signature_valid and not verdict.trusted and "ambiguous-structure" in codes(verdict)


def test_a_signature_part_that_readers_show_as_text(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written, _ = signed(people, smime)
    forged = written.replace(b"Content-Type: application/pkcs7-signature;", b"Content-Type: text/html;")
    verdict = smime.judge(forged, people.ca)
    assert verdict.signature_valid and not verdict.trusted and "partly-covered" in codes(verdict)


@pytest.mark.parametrize(
    "line",
    [
        b"I owe you 10,000.\r\n",
        b"Content-Type\x00: text/html\r\n",
        b"Content\xad-Type: text/html\r\n",
    ],
)
def test_a_header_line_at_which_other_readers_begin_the_body(people: SimpleNamespace, smime: SimpleNamespace, line: bytes) -> None:
    written, _ = signed(people, smime)
    verdict = smime.judge(written.replace(b"Content-Type: multipart", line + b"Content-Type: multipart", 1), people.ca)
    assert verdict.signature_valid and not verdict.trusted and "ambiguous-structure" in codes(verdict)


def test_a_blank_before_the_colon_that_hides_the_label_from_other_readers(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written, _ = signed(people, smime)
    verdict = smime.judge(written.replace(b"Content-Type: multipart", b"Content-Type : multipart", 1), people.ca)
    assert verdict.signature_valid and not verdict.trusted


def test_the_first_line_of_a_mailbox_file_does_no_harm(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written, _ = signed(people, smime)
    assert smime.judge(b"From alice@example.org Sun Nov 22 06:00:00 2026\r\n" + written, people.ca).trusted


@pytest.mark.parametrize("hidden", [b"\nFrom: ceo@bank.example", b"\rFROM : ceo@bank.example", b"\n\x00From\t: ceo@bank.example"])
def test_a_second_from_behind_a_bare_line_end(people: SimpleNamespace, smime: SimpleNamespace, hidden: bytes) -> None:
    written, _ = signed(people, smime)
    verdict = smime.judge(written.replace(b"Subject: x", b"Subject: x" + hidden, 1), people.ca)
    assert verdict.signature_valid and verdict.identity_match is False and not verdict.trusted and "from-repeated" in codes(verdict)


@pytest.mark.parametrize("domain", ["straße.example", "stra\u200dsse.example", "stras\u200cse.example"])
def test_a_domain_that_old_idna_maps_to_another_is_not_that_other(people: SimpleNamespace, smime: SimpleNamespace, domain: str) -> None:
    holder = people.ca.person("info@strasse.example")
    data = PLAIN.replace(b"alice@example.org", b"info@strasse.example")
    assert smime.judge(smime.sign(data, holder), people.ca).trusted
    forged = smime.sign(data.replace(b"strasse.example", domain.encode()), holder)
    assert smime.judge(forged, people.ca).identity_match is False


def attachment(der: bytes) -> bytes:
    return (
        b'Content-Type: application/pkcs7-mime; name="contract.pdf.p7m"\r\nContent-Transfer-Encoding: base64\r\n'
        b'Content-Disposition: attachment; filename="contract.pdf.p7m"\r\n\r\n' + base64.encodebytes(der).replace(b"\n", b"\r\n")
    )


def test_a_signed_document_that_is_attached_is_not_the_message_s_signature(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    opaque = smime.sign(PLAIN, people.bob, form="opaque")
    der = base64.b64decode(opaque.partition(b"\r\n\r\n")[2])
    mixed = (
        b"From: alice@example.org\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: text/plain\r\n\r\nsee contract\r\n"
        b"--m\r\n" + attachment(der) + b"\r\n--m--\r\n"
    )
    # Unsigned mail with it is unsigned mail; Alice's signature over it is Alice's, and the text is hers.
    assert smime.judge(mixed, people.ca).word is SmimeWord.NONE
    verdict = smime.judge(smime.sign(mixed, people.alice), people.ca)
    assert verdict.trusted and verdict.text == "see contract" and len(verdict.layers) == 1


def test_a_signature_among_other_parts_of_a_signed_message_lends_it_nothing(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    inner = smime.sign(PLAIN, people.alice)
    part = inner[inner.index(b"Content-Type: multipart") :]
    mixed = (
        b"From: alice@example.org\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: text/plain\r\n\r\npay mallory\r\n"
        b"--m\r\n" + part + b"\r\n--m--\r\n"
    )
    verdict = smime.judge(smime.sign(mixed, people.bob), people.ca)
    assert verdict.signature_valid and verdict.identity_match is False and not verdict.trusted and verdict.text == "pay mallory"


# -- work ------------------------------------------------------------------------------------------------------------------------


def test_a_megabyte_of_empty_lines_under_a_broken_signature_costs_little(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = PLAIN.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + b"\r\n" * 400_000 + b"x\r\n"
    written = smime.sign(data, people.alice)
    began = time.process_time()
    verdict = smime.judge(written.replace(b"\r\nx\r\n", b"\r\ny\r\n"), people.ca)
    assert verdict.signature_valid is False and time.process_time() - began < 5
    assert without_last_lines(b"a\r\n\r\n") == b"a" and without_last_lines(b"a\n") == b"a\n" and without_last_lines(b"") == b""


def test_signature_checks_are_counted_over_all_layers_and_by_the_size_of_the_key(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = PLAIN
    for _ in range(4):
        data = smime.sign(data, people.alice)
    assert smime.judge(data, people.ca).trusted
    few = smime.judge(data, people.ca, limits=Limits(signature_checks=3))
    assert not few.trusted and "limit-signature-checks" in codes(few) and few.word is SmimeWord.PERMERROR


def current_list(people: SimpleNamespace, at: datetime) -> bytes:
    """A list of the authority that revokes nobody."""
    key = serialization.load_der_private_key(people.ca.key, None)
    builder = x509.CertificateRevocationListBuilder().issuer_name(x509.load_der_x509_certificate(people.ca.der).subject)
    builder = builder.last_update(at - timedelta(hours=1)).next_update(at + timedelta(days=1))
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_lists_that_a_message_brings_are_kept_for_no_other_message(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    cache = PathCache()
    written, _ = signed(people, smime)
    message = index_message(BytesOctets(written))
    result = run_now(unprotect_message(message, backend=SoftwareBackend(), scratch=MemoryScratch, work=smime.work))
    crls = (current_list(people, smime.at),)
    brought = dataclasses.replace(result, layers=tuple(dataclasses.replace(one, crls=crls) for one in result.layers))
    for options, status, kept in ((PathOptions(check_revocation=True), Revocation.GOOD, 0), (PathOptions(), Revocation.NOT_CHECKED, 1)):
        for _ in range(3):
            verdict = assess(
                brought,
                message,
                anchors=anchor_set((people.ca.anchor,)),
                intermediates=(),
                at=smime.at,
                backend=SoftwareBackend(),
                options=options,
                cache=cache,
            )
            assert verdict.trusted and verdict.revocation is status, verdict.reasons
        assert len(cache) == kept
