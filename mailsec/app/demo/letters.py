"""The mail of the demonstration: what is sent, signed by whom, and what must become of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from mailsec.app.messages import at_once, random_octets
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.protect import protect_message

__all__ = ["ALICE", "BOB", "CAROL", "Letter", "Person", "encrypted", "inbound_letters", "letter", "signed"]

ALICE = "alice@example.org"
BOB = "bob@example.org"
CAROL = "carol@partner.example"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign: an address, a certificate (DER) and its key (PKCS#8 DER, in no `repr`)."""

    address: str
    certificate: bytes
    key: SoftwareKey


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that comes in, and the word of its result."""

    what: str
    octets: bytes
    message_id: str
    word: str
    must_be_gone: bytes = b""
    """Octets that may not arrive."""
    must_remain: bytes = b""
    """Octets that must arrive as they were sent."""


def letter(sender: str, recipient: str, subject: str, body: str, number: str) -> tuple[bytes, str]:
    """A plain message with CRLF line ends, and its Message-ID."""
    message = EmailMessage(policy=SMTP)
    message_id = f"<{number}@demo.{sender.partition('@')[2]}>"
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = message_id
    message.set_content(body)
    return message.as_bytes(), message_id


def signed(octets: bytes, person: Person) -> bytes:
    """The message with a detached signature of `person`."""

    protected = run_now(
        protect_message(
            index_message(BytesOctets(octets)),
            ProtectionPlan(sign=True, signer=person.key.name),
            signers=[person.key],
            backend=SoftwareBackend(),
            random=random_octets,
            work=at_once,
            at=datetime.now(UTC),
        )
    )
    return protected.join()


def encrypted(octets: bytes, person: Person, certificate: bytes) -> bytes:
    """The message signed by `person`, and encrypted for the holder of `certificate`."""
    protected = run_now(
        protect_message(
            index_message(BytesOctets(octets)),
            ProtectionPlan(sign=True, encrypt=True, signer=person.key.name),
            signers=[person.key],
            recipients=[EncryptionRecipient(certificate)],
            backend=SoftwareBackend(),
            random=random_octets,
            work=at_once,
            at=datetime.now(UTC),
        )
    )
    return protected.join()


def inbound_letters(carol: Person, stranger: Person, authserv_id: str) -> list[Letter]:
    """The five that come from outside."""
    plain, id_1 = letter(CAROL, BOB, "The offer", "Dear Bob,\n\nwe meet on Tuesday at ten.\n\nCarol\n", "signed")
    genuine = signed(plain, carol)
    other, id_2 = letter(CAROL, BOB, "The offer", "Dear Bob,\n\nwe meet on Tuesday at ten.\n\nCarol\n", "changed")
    changed = signed(other, carol).replace(b"Tuesday", b"Wednesday")
    strange, id_3 = letter(CAROL, BOB, "The new account", "Please pay into the new account.\n", "stranger")
    unsigned, id_4 = letter(CAROL, BOB, "Lunch", "Lunch at one?\n", "unsigned")
    claim, id_5 = letter(CAROL, BOB, "Trust me", "Everything is in order.\n", "forged")
    lie = f"Authentication-Results: {authserv_id};\r\n smime=pass body.smime-identifier={CAROL}\r\n".encode()
    return [
        Letter("signed, untouched", genuine, id_1, "pass", must_remain=genuine.partition(b"\r\n\r\n")[2]),
        Letter("signed, then one word changed", changed, id_2, "fail"),
        Letter("signed under a stranger's CA", signed(strange, stranger), id_3, "policy"),
        Letter("not signed", unsigned, id_4, "none"),
        Letter("not signed, with a forged smime=pass", lie + claim, id_5, "none", must_be_gone=b"smime=pass"),
    ]
