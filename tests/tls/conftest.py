"""One gateway with a listener for each way of TLS, and what clients of every kind show it."""

from __future__ import annotations

import datetime as dt
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from tests.peers.gateway import Gateway
from tests.peers.inbox import Inbox
from tests.tls.issuing import Holder, Issuer

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


class Scene:
    """The gateway, its inbox, and who has certificates."""

    def __init__(self, directory: Path, inbox: Inbox) -> None:
        self.directory = directory
        self.inbox = inbox
        self.ca = Issuer("TLS CA", at=NOW)
        self.below = Issuer("TLS CA 2", at=NOW, issuer=self.ca)
        self.stranger = Issuer("Somebody's CA", at=NOW)
        self.rsa = self.ca.issue("gw.example.org", kind="rsa")
        self.ec = self.below.issue("gw.example.org")
        self.other = self.ca.issue("other.example", "*.other.example")
        self.files = directory / "files"
        self.other.write(self.files)

        issue = self.ca.issue
        self.alice = self.below.issue(addresses=("alice@example.org",), purpose="client")
        self.mta = issue("mta.example.net", purpose="client")
        self.front = issue("front.example.net", addresses=("front@example.org",), purpose="client")
        self.printer = issue(purpose="client", common_name="printer")
        self.revoked = issue(addresses=("alice@example.org",), purpose="client", common_name="revoked")
        self.expired = issue(addresses=("alice@example.org",), purpose="client", ends=-1 * dt.timedelta(days=1))
        self.mail_only = issue(addresses=("alice@example.org",), purpose="mail")
        self.foreign = self.stranger.issue(addresses=("alice@example.org",), purpose="client")
        self.ca.revoke(self.revoked)
        # Believed for the clients of one domain.
        self.partner = Issuer("Partner CA", at=NOW)
        self.impostor = self.partner.issue(addresses=("alice@example.org", "carol@partner.example"), purpose="client")

        self.lists = directory / "revoked.crl"
        self.lists.write_bytes(self.ca.crl())
        self.lists_below = directory / "revoked2.crl"
        self.lists_below.write_bytes(self.below.crl())
        own: dict[str, Any] = {"tls": "implicit", "certificate": ["RSA", "EC", f"file:{self.files}"]}
        certified = {**own, "origin": "submission"}
        fronted = {**own, "origin": "internet", "client_names": ["front.example.net"], "front": {"xclient": True}}
        self.gateway = Gateway(
            directory / "gateway",
            inbox.port,
            workers=1,
            listeners=[
                {"name": "any", **own},
                {"name": "known", **own, "sni": "known"},
                {"name": "modern", **own, "tls_profile": "modern"},
                {"name": "fips", **own, "tls_profile": "fips-algorithms"},
                {"name": "named", **own, "sni": "required"},
                {"name": "newest", **own, "require": '%{SSL_PROTOCOL} == "TLSv1.3" and %{SSL_CIPHER_USEKEYSIZE} >= 128'},
                {"name": "optional", **certified, "client_certificates": "optional"},
                {"name": "required", **certified, "client_certificates": "required"},
                {"name": "relaying", **certified, "client_certificates": "required-for-relaying"},
                {
                    "name": "fingerprints",
                    **certified,
                    "client_certificates": "required",
                    "client_fingerprints": {self.printer.fingerprint: ["printer@example.org"]},
                },
                {
                    "name": "readers",
                    **own,
                    "protocol": "pop3",
                    "origin": "mailbox",
                    "upstream": "pop3s://mail.example.org",
                    "client_certificates": "required",
                    "require": '%{SSL_CLIENT_VERIFY} == "SUCCESS"',
                },
                {"name": "front", **fronted, "client_certificates": "optional"},
                {"name": "front-required", **fronted, "client_certificates": "required"},
                {
                    "name": "front-condition",
                    **fronted,
                    "client_certificates": "optional",
                    "require": '%{SSL_CLIENT_VERIFY} == "SUCCESS"',
                },
                {"name": "front-people", **fronted, "origin": "submission", "client_certificates": "required"},
                {
                    "name": "front-logins",
                    **fronted,
                    "origin": "submission",
                    "client_certificates": "required",
                    "front": {"xclient": True, "xclient_login": True},
                },
                {
                    "name": "tenant",
                    **own,
                    "tls": "starttls-required",
                    "origin": "trusted",
                    "senders": ["@example.org"],
                    "client_certificates": "required",
                    "client_names": ["mta.example.net"],
                },
            ],
            rule=[
                {"name": "behind the front", "match": {"tls": '%{SSL_CLIENT_S_DN_CN} == "front.example.net"'}, "sign": "never"},
                {"name": "alice", "match": {"tls": '%{SSL_CLIENT_S_DN_CN} == "alice@example.org"'}, "sign": "never"},
                {"name": "nothing", "sign": "never"},
            ],
            revocation={"crl_files": [str(self.lists), str(self.lists_below)]},
        )
        with self.database() as database:
            database.add(self.ca.der, "TLS-CA", trust=TrustFlags.parse("CT,,"), at=NOW)
            database.add(self.below.der, "TLS-CA-2", at=NOW)
            database.add(self.partner.der, "Partner-CA", trust=TrustFlags.parse("T,,"), domains=("partner.example",), at=NOW)
            ending = issue("old.example.org", ends=dt.timedelta(days=5, hours=1))
            for nickname, holder in (("RSA", self.rsa), ("EC", self.ec), ("ends soon", ending)):
                database.add(holder.der, nickname, private_key=holder.key, at=NOW)

    def database(self) -> CertDb:
        text = (self.gateway.directory / "passphrase").read_text().strip().removeprefix("internal:")
        return CertDb.open(str(self.gateway.directory / "mailsec.db"), password=text.encode())

    @property
    def ca_pem(self) -> str:
        return self.ca.pem.decode()

    def context(self, holder: Holder | None = None) -> ssl.SSLContext:
        if holder is None:
            return ssl.create_default_context(cadata=self.ca_pem)
        return holder.client_context(self.ca_pem, self.directory / "clients")

    def client(self, listener: str, holder: Holder | None = None, *, context: ssl.SSLContext | None = None) -> smtplib.SMTP:
        """smtplib on a listener with implicit TLS; `holder`: who it is."""
        return _Named(context or self.context(holder), "gw.example.org", self.gateway.ports[listener])

    def events(self, name: str) -> list[Any]:
        return [event for event in self.gateway.events() if event.get("event") == name]


class _Named(smtplib.SMTP_SSL):
    """Asks for a name that is not where it connects to."""

    def __init__(self, context: ssl.SSLContext, name: str, port: int) -> None:
        self._name = name
        super().__init__("127.0.0.1", port, local_hostname="client.example", timeout=30, context=context)

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        plain = smtplib.SMTP._get_socket(self, host, port, timeout)
        return self.context.wrap_socket(plain, server_hostname=self._name)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    with Inbox() as inbox:
        scene = Scene(tmp_path_factory.mktemp("tls"), inbox)
        try:
            scene.gateway.start()
            yield scene
        finally:
            scene.gateway.close()
