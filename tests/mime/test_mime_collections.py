"""Third-party MIME collections: nothing crashes, and relaying changes no octet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailsec.errors import MimeError
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


# Where we read another structure than mime4j, and why.
OTHER_STRUCTURE = {
    "bad-newlines-multiple-parts-base64.msg": "a message/rfc822 in base64 (forbidden by RFC 2046 §5.2.1) is a leaf",
    "ending-boundaries.msg": "a delimiter is followed by a line end (the grammar of RFC 2046 §5.1.1), as most readers have it",
    "very-long-boundary.msg": "over the limit boundary_octets",
    "very-very-long-boundary.msg": "over the limit boundary_octets",
    "weird-boundary.msg": "a boundary does not end in blanks (RFC 2046 §5.1.1)",
}


def test_part_counts_are_those_of_mime4j(vectors: Path) -> None:
    other = set()
    for path in files(vectors, "mime4j-testmsgs"):
        tree = path.with_suffix(".xml")
        if path.suffix != ".msg" or not tree.exists():
            continue
        octets = BytesOctets(to_crlf(BytesOctets(path.read_bytes())).join())
        found = read_parts(index_message(octets))
        children = sum(len(part.children) for part in walk(found) if part.content_type.type == "multipart")
        if children != tree.read_text("latin-1").count("<body-part>"):
            other.add(path.name)
    assert other <= set(OTHER_STRUCTURE)


def test_parts_and_addresses_are_those_of_stalwart(vectors: Path) -> None:
    seen = 0
    for path in sorted((vectors / "stalwart-mime" / "rfc").glob("*.eml")):
        expected = json.loads(path.with_suffix(".json").read_text())
        octets = BytesOctets(to_crlf(BytesOctets(path.read_bytes())).join())
        message = index_message(octets)
        multiparts = [part for part in expected["parts"] if "Multipart" in part["body"]]
        found = [part for part in walk(read_parts(message)) if part.content_type.type == "multipart"]
        ours = sorted(len(part.children) for part in found)
        theirs = sorted(len(part["body"]["Multipart"]) for part in multiparts)
        # They keep the parts of an embedded message in a tree of its own.
        assert all(ours.count(count) >= theirs.count(count) for count in set(theirs)), path
        for header in expected["parts"][0]["headers"]:
            if header["name"] in ("from", "to", "cc") and "List" in (header["value"].get("Address") or {}):
                addresses = [one["address"] for one in header["value"]["Address"]["List"] if "@" in (one["address"] or "")]
                assert [str(one) for one in mailboxes(message.first(header["name"]) or "").addresses] == addresses, path
                seen += 1
    assert seen
