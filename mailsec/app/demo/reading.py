"""The chapter in which Bob reads his mail by POP3: through the gateway, out of a mailbox that knows nothing of S/MIME."""

from __future__ import annotations

import poplib
import re
import ssl
from collections.abc import Sequence

from mailsec.app.demo.letters import BOB, CAROL, Letter, Person, encrypted, letter, signed
from mailsec.app.demo.show import Show, StepFailed
from mailsec.app.demo.world import World
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets

__all__ = ["read"]

PRICE = "The price is 4711."
_RESULT = re.compile(rb"^Authentication-Results: [^;]+;\s+smime=([a-z]+)", re.MULTILINE)


def read(show: Show, world: World, letters: Sequence[Letter], carol: Person) -> list[list[str]]:
    """Everything that Bob finds, held against what was delivered; rows for the table at the end."""
    plain, changed_id = letter(CAROL, BOB, "The price", "The price is 100.\n", "changed-in-the-mailbox")
    world.put(signed(plain, carol).replace(b"is 100.", b"is 900."))
    hidden, secret_id = letter(CAROL, BOB, "In confidence", f"{PRICE}\n", "lies-there-encrypted")
    sealed = encrypted(hidden, carol, world.certificate_of("bob"))
    if PRICE.encode() in sealed:
        raise StepFailed("a letter encrypted for Bob", "cipher text", "the text itself")
    world.put(sealed)

    found, tls = _retrieved(world)
    show.ok(f"logged in by POP3 with STLS ({tls}) as {BOB}", f"{len(found)} messages, from Twisted's POP3 server over the Maildir")
    for one in letters:
        _expect(one.what, found.get(one.message_id), one.word, sealed=True)
    show.ok("what the gateway delivered bears the same verdicts", "its seal is intact: nothing is judged again")
    octets = found.get(changed_id)
    _expect("a signed letter that was changed in the mailbox", octets, "fail")
    show.ok("a signed letter that was changed in the mailbox: smime=fail")
    octets = found.get(secret_id, b"")
    _expect("a letter encrypted for Bob", octets, "pass")
    if PRICE.encode() not in octets:
        raise StepFailed("a letter encrypted for Bob", "its text", octets[:400].decode("latin-1"))
    show.ok("a letter that lies there encrypted for Bob: opened on its way to him, smime=pass")
    return [
        [
            "changed in the mailbox",
            "smime=fail",
            "Authentication-Results: …; smime=fail",
            "read by POP3: the seal did not fit, the signature neither",
        ],
        [
            "encrypted in the mailbox",
            "smime=pass",
            "Authentication-Results: …; smime=pass",
            "read by POP3: opened with Bob's key, and Carol's signature inside",
        ],
    ]


def _retrieved(world: World) -> tuple[dict[str, bytes], str]:
    """Message-ID to octets of all that Bob finds; and the version of TLS."""
    client = poplib.POP3("localhost", world.ports["mailbox"], timeout=20)
    try:
        if "STLS" not in client.capa() or "USER" in client.capa():
            raise StepFailed("the gateway before TLS", "STLS, and no login", str(client.capa()))
        client.stls(ssl.create_default_context(cafile=str(world.ca_file)))
        assert isinstance(client.sock, ssl.SSLSocket)
        tls = client.sock.version() or ""
        client.user(BOB)
        client.pass_(world.password)
        found = {}
        for number in range(1, client.stat()[0] + 1):
            octets = b"".join(line + b"\r\n" for line in client.retr(number)[1])
            found[index_message(BytesOctets(octets)).first("message-id") or ""] = octets
        client.quit()
    except poplib.error_proto as error:
        raise StepFailed("reading by POP3", "+OK", str(error)) from error
    return found, tls


def _expect(what: str, octets: bytes | None, word: str, *, sealed: bool = False) -> None:
    if octets is None:
        raise StepFailed(what, "the message", "there is none in the mailbox")
    results = _RESULT.findall(octets)
    if results != [word.encode()]:
        raise StepFailed(what, f"smime={word}", octets[:400].decode("latin-1"))
    if sealed is not (b"\nX-Mailsec-Seal: " in b"\n" + octets):
        raise StepFailed(what, "the seal of the gateway" if sealed else "no seal", octets[:400].decode("latin-1"))
