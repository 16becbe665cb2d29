"""Mutants of header fields; mutants of messages and CMS objects, of which openssl and mailsec must think the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mailsec.algorithms.profiles import PROFILES
from mailsec.cms.signed import read_signed_data
from mailsec.cms.verify import verify_signers
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.addresses import mailboxes
from mailsec.mime.fields import content_type, decode_words, encode_field, read_parameterised
from mailsec.mime.index import index_message
from mailsec.mime.results import read_results
from mailsec.model.octets import BytesOctets
from mailsec.model.trust import Anchor
from mailsec.model.verdict import SignerResult, Verdict
from mailsec.smime.assess import assess
from mailsec.smime.report import authentication_results, verdict_json
from mailsec.smime.unprotect import unprotect_message
from mailsec.testing.memory import MemoryScratch

from .mutations import FACTOR, hold, mutants
from .world import work

FIELDS = [
    b'"Alice (x)" <alice@example.org>, bob@example.net (c), group: a@b, c@d;',
    b"=?utf-8?q?h=C3=A9?= =?iso-2022-jp?b?GyRCJCIbKEI=?= <@a,@b:c@d>",
    b'multipart/signed; boundary="a b"; micalg=sha-256; name*0*=utf-8\'\'%41; name*1="x"; protocol="application/pkcs7-signature"',
    b'gw.example.org 1; smime=pass (c) reason="x" body.smime-identifier=a@b; dkim=none',
]


def test_header_values(world) -> None:
    def target(data: bytes) -> None:
        text = data.decode("latin-1")
        mailboxes(text)
        content_type(text)
        read_parameterised(text)
        decode_words(text)
        read_results(text)
        encode_field("X-Test", text)

    for data in mutants(FIELDS, 4000):
        hold(target, data)


def _judge(data: bytes, world) -> Verdict:
    message = index_message(BytesOctets(data))
    backend = SoftwareBackend()
    result = run_now(unprotect_message(message, backend=backend, scratch=MemoryScratch, work=work))
    verdict = assess(result, message, anchors=(Anchor(world.ca.certificate),), intermediates=(), at=world.at, backend=backend)
    verdict_json(verdict)
    field = authentication_results(verdict, "gw.example.org")
    assert read_results(field).results[0][:2] == ("smime", verdict.word.value), field
    return verdict


# What openssl does not look at: signing-certificate (RFC 5035; only with -cades), parts of CMSAlgorithmProtection (RFC 6211).
NOT_LOOKED_AT = {"certificate-exchanged", "algorithms-exchanged"}


def openssl_accepts(openssl: str, form: str, data: bytes, folder: Path) -> bytes | None:
    """The content, where openssl calls the signature right; chains are not its question here."""
    (folder / "in").write_bytes(data)
    command = [openssl, "cms", "-verify", "-noverify", "-inform", form, "-in", str(folder / "in"), "-out", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, timeout=30)
    return None if done.returncode else (folder / "out").read_bytes().replace(b"\r\n", b"\n").rstrip()


def test_what_openssl_accepts_of_mutants_of_messages_is_never_called_changed(world, need, tmp_path) -> None:
    openssl, content = need("openssl"), world.content.replace(b"\r\n", b"\n").rstrip()
    accepted = 0
    for data in mutants(world.mails[:2], 60, seed=7):
        if openssl_accepts(openssl, "SMIME", data, tmp_path) == content:
            accepted += 1
            verdict = _judge(data, world)
            # It takes a line that only begins with the boundary for a delimiter, and guesses labels: what we cannot read is not "changed".
            unread = verdict.word.value in ("neutral", "none")
            assert verdict.signature_valid or unread or {one.code for one in verdict.reasons} & NOT_LOOKED_AT, (verdict.reasons, data)
    assert accepted > FACTOR


def test_openssl_and_we_agree_on_mutants_of_cms_objects(world, need, tmp_path) -> None:
    openssl = need("openssl")
    accepted = 0
    for data in mutants(world.cms[:2], 80, seed=8):
        theirs = openssl_accepts(openssl, "DER", data, tmp_path)

        def ours(octets: bytes) -> tuple[list[SignerResult], bytes]:
            signed = read_signed_data(BytesOctets(octets))
            results = verify_signers(signed, None, backend=SoftwareBackend(), profile=PROFILES["legacy"])
            return list(results), b"".join(map(bytes, signed.content_blocks()))

        found = hold(ours, data)
        results, content = found if isinstance(found, tuple) else ([], b"")
        broken = {reason.code for one in results if not one.intact for reason in one.reasons}
        if results and not broken:
            accepted += 1
            # It refuses some for a certificate that nobody needs and that it cannot read: the content is the one that was signed.
            assert content == world.content and theirs in (None, content.replace(b"\r\n", b"\n").rstrip())
        elif theirs is not None:
            assert results and broken <= NOT_LOOKED_AT, (broken, data.hex())
    assert accepted > FACTOR


@pytest.mark.parametrize(
    "unit", [b":;", b";", b'";', b";a", b"; ", b"(", b'"', b"=?a?q?b?= ", b";a*1=", b"<", b"@", b"a@b.c,", b"\xff", "\u0300\u0316".encode()]
)
def test_long_field_values_cost_linear_time(world, unit: bytes) -> None:
    for name in (b"From", b"Content-Type: multipart/signed; x", b"Content-Disposition", b"Authentication-Results: gw.example.org; x"):
        data = name + b": " * (b":" not in name) + unit * (250_000 // len(unit)) + b"x\r\n\r\nbody\r\n"
        hold(lambda octets: _judge(octets, world), data)
