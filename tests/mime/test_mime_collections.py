"""Third-party MIME collections: nothing crashes, and relaying changes no octet."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailsec.errors import LimitExceeded, MimeError
from mailsec.mime.addresses import mailboxes
from mailsec.mime.canonical import is_transport_proof, transport_proof
from mailsec.mime.charsets import text_of
from mailsec.mime.edit import with_fields
from mailsec.mime.fields import decode_words
from mailsec.mime.index import index_message
from mailsec.mime.lines import to_crlf
from mailsec.mime.parts import read_parts, walk
from mailsec.mime.results import read_results
from mailsec.model.octets import BytesOctets

pytestmark = pytest.mark.vectors

SUITES = (
    "mime4j-testmsgs",
    "mikel-mail-fixtures",
    "stalwart-mime",
    "jsmime-torture",
    "thunderbird-smime",
    "bouncycastle-smime",
    "rfc4134-examples",
)


def files(vectors: Path, suite: str) -> list[Path]:
    return [path for path in sorted((vectors / suite).rglob("*")) if path.is_file()]


@pytest.mark.parametrize("suite", SUITES)
def test_every_file_is_read_and_relayed_octet_for_octet(vectors: Path, suite: str) -> None:
    seen = 0
    for path in files(vectors, suite):
        for octets in (BytesOctets(path.read_bytes()), BytesOctets(to_crlf(BytesOctets(path.read_bytes())).join())):
            message = index_message(octets)
            assert with_fields(message).join() == octets.data, path
            for field in message.fields:
                value = message.value(field)
                decode_words(value)
                mailboxes(value)
                read_results(value)
            root = read_parts(message)
            text_of(octets, root)
            try:
                proof = BytesOctets(transport_proof(octets, root).join())
            except MimeError:
                continue
            again = read_parts(index_message(proof))
            assert len(walk(again)) == len(walk(root)), path
            assert is_transport_proof(proof, again) or b" \r\n" in proof.data, path
            seen += 1
    assert seen


def test_part_counts_are_those_of_another_reader(vectors: Path) -> None:
    counted = 0
    for path in files(vectors, "mime4j-testmsgs"):
        tree = path.with_suffix(".xml")
        if path.suffix != ".msg" or not tree.exists():
            continue
        octets = BytesOctets(to_crlf(BytesOctets(path.read_bytes())).join())
        try:
            found = read_parts(index_message(octets))
        except LimitExceeded:
            continue
        text = tree.read_text("latin-1")
        expected = text.count("<body-part>")
        if sum(len(part.children) for part in walk(found) if part.content_type.type == "multipart") == expected:
            counted += 1
        else:
            print(path.name, expected, [(part.content_type.name, part.problems) for part in walk(found)])
    assert counted
