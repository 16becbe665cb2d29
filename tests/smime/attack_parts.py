"""What attackers put messages together from: parts that others once signed or encrypted, and frames around them."""

from __future__ import annotations

import base64
import os
from types import SimpleNamespace
from typing import Any

from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.sign import sign_content, signer_for
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.octets import Segments

__all__ = ["FORGED", "HEAD", "TEXT", "base64_part", "encrypted_part", "mixed", "signature", "signed_part"]

HEAD = b"From: alice@example.org\r\nTo: bob@example.org\r\nSubject: x\r\n"
TEXT = b"Content-Type: text/plain\r\n\r\nwhat alice signed\r\n"
FORGED = b"Content-Type: text/html\r\n\r\nwhat the attacker says\r\n"


def signature(smime: SimpleNamespace, key: SoftwareKey, content: bytes) -> tuple[Any, list[bytes]]:
    signer = signer_for(key)
    digest = SoftwareBackend().hash(signer.digest)
    digest.update(content)
    return signer, [run_now(sign_content(signer, digest.digest(), at=smime.at))]


def base64_part(label: bytes, der: bytes) -> bytes:
    return b"Content-Type: " + label + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(der).replace(b"\n", b"\r\n")


def signed_part(smime: SimpleNamespace, people: SimpleNamespace) -> bytes:
    """A multipart/signed of Alice, as it was once sent to the attacker."""
    signed: bytes = smime.sign(HEAD + TEXT, people.alice)
    return signed[signed.index(b"Content-Type: multipart/signed") :]


def mixed(*parts: bytes, kind: bytes = b"mixed") -> bytes:
    body = b"".join(b"\r\n--outer\r\n" + part for part in parts)
    return HEAD + b"Content-Type: multipart/" + kind + b"; boundary=outer\r\n" + body + b"\r\n--outer--\r\n"


def encrypted_part(people: SimpleNamespace, content: bytes) -> bytes:
    found = encrypt_content(
        Segments((content,)), [people.bob.certificate], backend=SoftwareBackend(), random=os.urandom, cipher="aes-256-gcm"
    )
    return base64_part(b"application/pkcs7-mime", run_now(found).join())
