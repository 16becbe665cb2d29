"""Third-party S/MIME messages: what their authors say of each, for signatures (encrypted ones must only be recognised)."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailsec.algorithms.profiles import PROFILES
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.mime.lines import to_crlf
from mailsec.model.octets import BytesOctets
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Verdict
from mailsec.pki.path import PathOptions
from mailsec.smime.assess import assess
from mailsec.smime.report import verdict_json
from mailsec.smime.unprotect import unprotect_message
from mailsec.testing.memory import MemoryScratch

pytestmark = pytest.mark.vectors

SUITES = ("thunderbird-smime", "bouncycastle-smime", "rfc4134-examples", "openssl-cms")
# thunderbird-smime needs no instant: its certificates are valid for years; this is within all of them.
DEFAULT_AT = datetime(2026, 11, 22, tzinfo=UTC)


def rows() -> list[Any]:
    vectors = Path(__file__).resolve().parents[3] / "shared" / "vectors"
    found = []
    for suite in SUITES:
        listing = vectors / suite / "expected.json"
        for row in json.loads(listing.read_text()) if listing.exists() else ():
            if row["op"] in ("smime", "smime-verify"):
                found.append(pytest.param(vectors / suite, row, id=row["id"]))
    return found or [pytest.param(None, None, marks=pytest.mark.skip("no ../shared/vectors beside this checkout"))]


def certificate(path: Path) -> bytes:
    data = path.read_bytes()
    pem = re.search(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", data, re.DOTALL)
    return base64.b64decode(pem.group(1)) if pem else data


def verdict(folder: Path, row: dict[str, Any], smime: SimpleNamespace, *, legacy: bool) -> Verdict:
    octets = BytesOctets((folder / row["file"]).read_bytes())
    message = index_message(BytesOctets(to_crlf(octets).join()))
    profile = PROFILES["legacy" if legacy else "default"]
    result = run_now(unprotect_message(message, backend=SoftwareBackend(), scratch=MemoryScratch, work=smime.work, profile=profile))
    return assess(
        result,
        message,
        anchors=[Anchor(certificate(folder / name)) for name in row.get("anchors", ())],
        intermediates=(),
        at=datetime.fromisoformat(row["at"]) if row.get("at") else DEFAULT_AT,
        backend=SoftwareBackend(),
        options=PathOptions(profile=profile),
    )


@pytest.mark.parametrize(("folder", "row"), rows())
def test_verdicts_are_those_of_the_suite(folder: Path, row: dict[str, Any], smime: SimpleNamespace) -> None:
    encrypted_outside = row.get("encrypted") is True
    for legacy in (False, True):
        found = verdict(folder, row, smime, legacy=legacy)
        json.dumps(verdict_json(found))
        if encrypted_outside:
            # Not opened here: recognised, and nothing in favour of what is inside.
            assert found.encrypted and not found.trusted
            continue
        if "signed" in row:
            assert found.signed == row["signed"] and found.encrypted == row["encrypted"]
        if row.get("crypto_valid") is not None and (legacy or not row.get("legacy")):
            assert found.signature_valid == row["crypto_valid"], found.reasons
        if row.get("chain_valid") is not None and not row.get("crls"):
            assert found.chain_valid == row["chain_valid"] or not legacy, found.reasons
        expected = row.get("trusted_if_sha1_allowed", row.get("trusted")) if legacy else row.get("trusted")
        if expected is not None and not row.get("crls") and (legacy or expected is False or row["id"].startswith("tb/")):
            assert found.trusted == expected, found.reasons
        if row.get("text"):
            assert row["text"] in (found.text or "")
        if row.get("legacy") and not legacy:
            assert not found.trusted and any("weak" in reason.code for reason in found.reasons)


def test_hostile_cms_in_mail_is_never_signed_in_favour(vectors: Path, smime: SimpleNamespace) -> None:
    seen = 0
    for folder in ("nss-smime-interop/malformed", "openssl-cms", "rustcrypto-cms", "rfc4134-examples"):
        for path in sorted((vectors / folder).rglob("*")):
            if not path.is_file() or path.stat().st_size > 1_000_000:
                continue
            body = base64.encodebytes(path.read_bytes()).replace(b"\n", b"\r\n")
            for kind in (b"application/pkcs7-mime", b"application/octet-stream; name=smime.p7m"):
                data = b"From: a@b.example\r\nContent-Type: " + kind + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body
                assert not smime.judge(data).trusted
                seen += 1
    assert seen
