"""Dovecot with its mailboxes, and a gateway in front of it: by LMTP what arrives, by POP3 what is read."""

from __future__ import annotations

import poplib
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.dovecot import Dovecot, why_not
from tests.peers.gateway import Gateway, server_certificate


class Mailboxes:
    """Both, and a way to read."""

    def __init__(self, dovecot: Dovecot, gateway: Gateway) -> None:
        self.dovecot = dovecot
        self.gateway = gateway
        self.trusting = ssl.create_default_context(cafile=str(gateway.ca_file))

    def reader(self, listener: str = "pop3s", login: str = "alice", password: str = "secret") -> poplib.POP3:
        """poplib, logged in at the gateway; on "pop3" by STLS."""
        port = self.gateway.ports[listener]
        client: poplib.POP3
        if listener == "pop3s":
            client = poplib.POP3_SSL("localhost", port, context=self.trusting, timeout=30)
        else:
            client = poplib.POP3("localhost", port, timeout=30)
            client.stls(self.trusting)
        client.user(login)
        client.pass_(password)
        return client

    def retrieved(self, number: int = 1, **more: Any) -> bytes:
        """One message as it is read through the gateway."""
        client = self.reader(**more)
        _, lines, _ = client.retr(number)
        client.quit()
        return b"".join(line + b"\r\n" for line in lines)


@pytest.fixture(scope="package")
def mailboxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailboxes]:
    if why := why_not():
        pytest.skip(why)
    # Dovecot's users must reach it, so it does not lie below pytest's own directory.
    place = Path(tempfile.mkdtemp(prefix="mailsec-dovecot-"))
    dovecot = Dovecot(place, *server_certificate())
    upstream = {"to": f"pop3s://localhost:{dovecot.tls_port}", "domains": ["example.org"]}
    mailbox = {"protocol": "pop3", "origin": "mailbox", "certificate": "Server-Cert"}
    gateway = Gateway(
        tmp_path_factory.mktemp("gateway"),
        f"lmtp:unix:{dovecot.lmtp}",
        listeners=[
            {"name": "pop3s", "tls": "implicit", "upstream": upstream, **mailbox},
            {"name": "pop3", "tls": "starttls-required", "upstream": f"pop3://localhost:{dovecot.port}", "on_failure": "notice", **mailbox},
            {
                "name": "named",
                "tls": "starttls-required",
                "allowed_upstreams": [f"pop3s://127.0.0.1:{dovecot.tls_port}", f"pop3s://localhost:{dovecot.tls_port}", "*"],
                **mailbox,
            },
        ],
        gateway={"reprocess_address": "again@example.org"},
        relay={"ca_file": "ca.pem"},
    )
    try:
        dovecot.start()
        gateway.start()
        yield Mailboxes(dovecot, gateway)
    finally:
        gateway.close()
        dovecot.stop()
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def empty(mailboxes: Mailboxes) -> Mailboxes:
    """With nothing in the mailboxes."""
    for user in ("alice", "bob"):
        mailboxes.dovecot.empty(user)
    return mailboxes
