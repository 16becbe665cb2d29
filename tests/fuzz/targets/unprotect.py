"""`smime.unprotect`: a mutated signed octet is never intact, a mutated sealed one never opens, and nothing else is trusted or handed on."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from mailsec.interfaces import run_now
from mailsec.mime.addresses import mailboxes
from mailsec.mime.index import index_message
from mailsec.mime.lines import to_crlf
from mailsec.mime.results import read_results
from mailsec.model.message import Message
from mailsec.model.octets import BytesOctets, Octets
from mailsec.model.trust import Anchor
from mailsec.model.verdict import SmimeResult, Verdict
from mailsec.smime.assess import assess
from mailsec.smime.report import authentication_results, verdict_json
from mailsec.smime.unprotect import unprotect_message
from mailsec.testing.memory import MemoryScratch

from ..mutations import WORDS
from ..world import BACKEND, MAIL, make_world, vector_files, work
from . import Target

__all__ = ["TARGET"]

# What the certificates of Alice name.
_ALICE = {"alice@example.org", "älice@example.org"}


def _octets(octets: Octets) -> bytes:
    return bytes(octets.view(0, len(octets)))


def _held(result: SmimeResult, message: Message) -> None:
    world = make_world()
    ours = (world.alice.certificate, world.rsa.certificate)
    innermost = result.layers[-1] if result.layers else None
    if innermost is not None and any(signer.intact and signer.certificate in ours for signer in innermost.signers):
        assert result.content is not None
        body = _octets(result.content).split(b"\r\n\r\n", 1)[-1]
        assert body.rstrip() == b"hello", "intact over what nobody signed"
    for layer in result.layers:
        assert layer.opened is not True or layer.algorithm, "opened by an algorithm that has a name"
        assert layer.opened is not False or layer.reasons, "what stays closed says why"
    if result.clear is not None:
        clear = index_message(BytesOctets(_octets(result.clear)))
        # What is written anew has CRLF everywhere: a line behind a bare LF becomes the field that other readers saw before.
        outside = [message, index_message(BytesOctets(to_crlf(message.octets).join()))]
        within = {name.lower() for name in result.protected_fields}
        for field in clear.fields:
            # MIME-Version: 1.0 is ours to add.
            if not field.name.startswith("content-") and field.name not in {*within, "mime-version"}:
                assert any(clear.value(field) in one.values(field.name) for one in outside), (
                    "only Content-* and protected fields come from inside"
                )


def _believed(verdict: Verdict, message: Message) -> None:
    verdict_json(verdict)
    told = authentication_results(verdict, "gw.example.org")
    assert read_results(told).results[0][:2] == ("smime", verdict.word.value), told
    assert verdict.trusted or verdict.reasons or not verdict.signed, "what is not trusted says why"
    if verdict.trusted:
        assert verdict.text == "hello", "trusted with another text"
        (value,) = message.values("from")
        assert {address.key for address in mailboxes(value).addresses} <= _ALICE, "trusted mail of another author"


def message_of(data: bytes) -> bytes:
    """A message; octets that begin as a CMS object does are put into one, as no mutant of base64 would come to what lies in it."""
    if data[:1] != b"\x30":
        return data
    head = MAIL[: MAIL.index(b"Content-Type")] + b"Content-Type: application/pkcs7-mime; name=smime.p7m\r\n"
    return head + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(data).replace(b"\n", b"\r\n")


def check(data: bytes) -> str:
    """Take the layers off with Bob's keys, and judge."""
    world = make_world()
    data = message_of(data)
    message = index_message(BytesOctets(data))
    result = run_now(unprotect_message(message, keys=[world.bob, world.bob_rsa], backend=BACKEND, scratch=MemoryScratch, work=work))
    _held(result, message)
    anchors = (Anchor(world.ca.certificate),)
    verdict = assess(result, message, anchors=anchors, intermediates=(), at=world.at, backend=BACKEND)
    _believed(verdict, message)
    return f"opened, {verdict.word.value}" if any(layer.opened for layer in result.layers) else verdict.word.value


def seeds() -> Sequence[bytes]:
    """Alice's mail, signed and sealed; what she signed and what is for Bob, without a message."""
    world = make_world()
    return [*world.mails, *world.sealed_mails, *world.cms[:2], *world.encrypted]


def others() -> Sequence[bytes]:
    """S/MIME messages of other programs."""
    return vector_files(
        "thunderbird-smime/**/*.eml", "bouncycastle-smime/mail/*", "rfc4134-examples/*.eml", "openssl-cms/**/*.eml", most=12_000
    )


_REACHED = frozenset({"pass", "fail", "policy", "neutral", "none", "opened, pass", "opened, none"})
TARGET = Target("unprotect", check, seeds, others, WORDS, _REACHED, 20_000, 30)
