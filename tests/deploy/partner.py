"""A partner whose mail is encrypted in both directions. What she does with keys, openssl does: she stands for the programs at the far end."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from mailsec.app.demo.letters import letter, signed
from mailsec.keys.files import pem
from mailsec.model.address import Address
from mailsec.x509.issue import issue_mail, make_key, public_key_of
from tests.deploy.place import ALICE, CAROL, PASSWORD, Place
from tests.peers.gateway import until

__all__ = ["DORA", "Dora"]

DORA = "dora@partner.example"


class Dora:
    """Her certificate is imported on the machine, where it was agreed that mail for her is encrypted; she knows Alice's.

    Make her before the page is followed: a running mailsec hears of what was agreed only after a moment.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        key = make_key("ec-p256")
        self.certificate = issue_mail(
            place.ca, addresses=[Address.parse(DORA)], public_key=public_key_of(key), at=datetime.now(UTC), random=os.urandom, days=30
        )
        for name, octets in {"dora.pem": pem(self.certificate, "CERTIFICATE"), "dora.key": pem(key, "PRIVATE KEY")}.items():
            (place.directory / name).write_bytes(octets)
        place.machine.file("/etc/mailsec/dora.pem").write_bytes(pem(self.certificate, "CERTIFICATE"))
        place.machine.run(
            f"mailsec cert import /etc/mailsec/dora.pem && mailsec partner set {DORA} encrypt=required && chown mailsec:mailsec /var/lib/mailsec/*"
        )
        (place.directory / "alice.pem").write_text(place.machine.run(f"mailsec cert export {ALICE}"))

    def _openssl(self, *words: str | Path, octets: bytes) -> bytes:
        command = [shutil.which("openssl") or "openssl", "cms", *map(str, words)]
        done = subprocess.run(command, input=octets, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def encrypted(self, number: str, text: str) -> bytes:
        """A letter of her colleague Carol to Alice, signed and then encrypted for her."""
        octets = signed(letter(CAROL, ALICE, number, text, number)[0], self.place.carol)
        head, _, body = octets.partition(b"\r\n\r\n")
        fields = re.split(rb"\r\n(?![ \t])", head)
        inner = [field for field in fields if field.lower().startswith(b"content-")]
        outer = [field for field in fields if not field.lower().startswith((b"content-", b"mime-"))]
        entity = b"\r\n".join((*inner, b"", body))
        made = self._openssl("-encrypt", "-binary", "-aes-256-cbc", self.place.directory / "alice.pem", octets=entity)
        return b"\r\n".join((*outer, made.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")))

    def opens(self, octets: bytes) -> bytes:
        """The text of a letter that came, opened with her key and then under Alice's signature, which is intact."""
        recipient = ("-recip", self.place.directory / "dora.pem", "-inkey", self.place.directory / "dora.key")
        opened = self._openssl("-decrypt", *recipient, octets=octets)
        authority = self.place.machine.file("/etc/mailsec/example-ca.pem")
        return self._openssl("-verify", "-CAfile", authority, octets=opened)

    def is_written_to(self, client: smtplib.SMTP, number: str) -> None:
        """Alice logs in and writes to her: what leaves can be read by nobody else, and has Alice's signature inside."""
        octets = letter(ALICE, DORA, "a price", "Dear Dora,\n\nnine hundred.\n", number)[0]
        with client:
            client.login("alice", PASSWORD)
            assert client.sendmail(ALICE, [DORA], octets) == {}
        delivered = until(lambda: self.place.world.of(f"<{number}@demo.example.org>"), 60)[0]
        assert delivered.recipients == (DORA,)
        assert b"nine hundred" not in delivered.octets and b"multipart/signed" not in delivered.octets
        assert b"nine hundred" in self.opens(delivered.octets)
