"""Mail for the tests with mailboxes: signed, encrypted, both."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from mailsec.app.demo.letters import Person, signed
from mailsec.app.messages import at_once
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.protect import protect_message
from mailsec.store.certdb import CertDb
from tests.peers.gateway import Gateway


def letter(text: str, sender: str = "carol@partner.example", recipient: str = "alice@example.org", number: int = 1) -> bytes:
    """A plain message."""
    head = f"From: {sender}\r\nTo: {recipient}\r\nSubject: letter {number}\r\nDate: Thu, 1 Jan 2026 12:00:00 +0000\r\n"
    return f"{head}Message-ID: <{number}@{sender}>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n{text}\r\n".encode()


def signed_by(person: Person, text: str = "Good day.") -> bytes:
    """A message with a detached signature."""
    return signed(letter(text, person.address), person)


def encrypted_for(gateway: Gateway, address: str, *, signer: Person | None = None) -> bytes:
    """A message for one of our people, signed within by `signer`."""
    password = (gateway.directory / "passphrase").read_text().strip().removeprefix("internal:")
    with CertDb.open(str(gateway.directory / "mailsec.db"), password=password.encode()) as database:
        certificate = database.find(address.partition("@")[0])[0].der
    plan = ProtectionPlan(sign=signer is not None, signer=signer.key.name if signer else "", encrypt=True, recipients=(address,))
    protected = protect_message(
        index_message(BytesOctets(letter("the secret"))),
        plan,
        signers=[signer.key] if signer else [],
        recipients=[EncryptionRecipient(certificate)],
        backend=SoftwareBackend(),
        random=os.urandom,
        work=at_once,
        at=datetime.now(UTC),
    )
    return run_now(protected).join()
