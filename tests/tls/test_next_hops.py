"""Outgoing TLS: who a next hop must be, what happens where it is somebody else, and that mail then waits and says why."""

from __future__ import annotations

import datetime as dt
import smtplib
import ssl
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from mailsec.store.certdb import CertDb
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox
from tests.peers.postfix import free_ports
from tests.tls.issuing import Holder, Issuer

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
NAME = "mx.partner.example"


class Peer:
    """A mail server that shows `holder`, and remembers what came, under which TLS, and from whom."""

    def __init__(self, port: int, directory: Path, holder: Holder | None, *, clients: Issuer | None = None, broken: bool = False) -> None:
        self.directory = directory
        self.came: list[tuple[bytes, str, dict]] = []
        self.context = None
        if holder is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.show(holder)
        if clients is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(cadata=clients.pem.decode())
        if broken:
            self.context.minimum_version = ssl.TLSVersion.TLSv1_3
            self.context.set_ecdh_curve("secp521r1")
        self.controller = Controller(self, hostname="127.0.0.1", port=port, tls_context=self.context)
        self.controller.start()

    def show(self, holder: Holder) -> None:
        self.context.load_cert_chain(*holder.write(self.directory, holder.fingerprint[:8]))

    async def handle_DATA(self, _server, session, envelope) -> str:
        tls = session.ssl and session.ssl.get("cipher")
        self.came.append((envelope.original_content, tls[1] if tls else "", (session.ssl or {}).get("peercert") or {}))
        return "250 taken"


class Scene:
    def __init__(self, directory: Path, inbox: Inbox) -> None:
        self.directory = directory
        self.ca, self.other = Issuer("Partner CA", at=NOW), Issuer("Other CA", at=NOW)
        self.right, self.wrong = self.ca.issue(NAME), self.ca.issue("other.example")
        self.foreign = self.other.issue(NAME)
        self.renewed = self.ca.issue(NAME)
        self.us = self.ca.issue("gw.example.org", purpose="client")
        keys = directory / "keys"
        keys.mkdir()
        shown = {
            "right": (self.right, {"tls": "verified", "server_name": NAME}),
            "wrong-name": (self.wrong, {"tls": "verified", "server_name": NAME}),
            "foreign": (self.foreign, {"tls": "verified", "server_name": NAME}),
            "stripped": (None, {"tls": "verified", "server_name": NAME}),
            "required-clear": (None, {"tls": "required"}),
            "opportunistic-clear": (None, {"tls": "opportunistic"}),
            "required-any": (self.foreign, {"tls": "required"}),
            "pinned": (self.renewed, {"tls": "verified", "pins": [f"key-sha256:{self.right.key_fingerprint}"]}),
            "pinned-whole": (self.foreign, {"tls": "verified", "pins": [f"sha256:{self.foreign.fingerprint}"]}),
            "nickname": (self.wrong, {"tls": "verified", "authority": "Partner"}),
            "nickname-ca": (self.foreign, {"tls": "verified", "server_name": NAME, "authority": "Other-CA"}),
            "nickname-name": (self.other.issue("other.example"), {"tls": "verified", "server_name": NAME, "authority": "Other-CA"}),
            "pinned-later": (self.renewed, {"tls": "verified", "pins": [f"key-sha256:{self.right.key_fingerprint}"]}),
            "name-later": (self.wrong, {"tls": "verified", "server_name": NAME}),
            "client": (self.right, {"tls": "verified", "server_name": NAME, "certificate": f"file:{directory / 'us'}"}),
            "broken": (self.right, {"tls": "opportunistic", "tls_profile": "modern"}),
            "broken-required": (self.right, {"tls": "required", "tls_profile": "modern"}),
        }
        self.us.write(directory / "us")
        ports = free_ports(len(shown))
        self.peers = {
            case: Peer(port, keys, holder, clients=self.ca if case == "client" else None, broken=case.startswith("broken"))
            for port, (case, (holder, _)) in zip(ports, shown.items(), strict=True)
        }
        routes = {
            f"{case}.example": {"to": f"smtp://[127.0.0.1]:{port}", **hop}
            for port, (case, (_, hop)) in zip(ports, shown.items(), strict=True)
        }
        roots = directory / "roots.pem"
        roots.write_bytes(self.ca.pem)
        self.gateway = Gateway(
            directory / "gateway",
            inbox.port,
            workers=1,
            relay={"routes": routes, "ca_file": str(roots)},
            rule=[{"name": "nothing", "sign": "never"}],
        )
        text = (self.gateway.directory / "passphrase").read_text().strip().removeprefix("internal:")
        with CertDb.open(str(self.gateway.directory / "mailsec.db"), password=text.encode()) as database:
            database.add(self.wrong.der, "Partner", at=NOW)
            database.add(self.other.der, "Other-CA", at=NOW)

    def send(self, case: str) -> Peer:
        with smtplib.SMTP("127.0.0.1", self.gateway.ports["trusted"], timeout=30) as client:
            client.sendmail("alice@example.org", [f"bob@{case}.example"], f"From: alice@example.org\r\nSubject: {case}\r\n\r\nx\r\n")
        return self.peers[case]

    def why(self, case: str) -> str:
        """Why mail waits that is for `case`."""

        def look() -> str:
            return " ".join(
                str(one.get("reply") or one.get("reason") or "")
                for one in self.gateway.events()
                if f"bob@{case}.example" in json_of(one) and "deferred" in json_of(one)
            )

        return until(look, 30, case)


def json_of(event) -> str:
    return repr(dict(event))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with Inbox() as inbox:
        scene = Scene(tmp_path_factory.mktemp("hops"), inbox)
        try:
            scene.gateway.start()
            yield scene
        finally:
            scene.gateway.close()
            for peer in scene.peers.values():
                peer.controller.stop()


@pytest.mark.parametrize("case", ["right", "required-any", "pinned-whole", "nickname", "nickname-ca", "client"])
def test_mail_goes_under_tls(scene, case):
    peer = scene.send(case)
    (_octets, version, certificate) = until(lambda: peer.came, 30, case)[0]
    assert version.startswith("TLSv1.")
    if case == "client":
        assert ("commonName", "gw.example.org") in [pair for part in certificate["subject"] for pair in part]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wrong-name", f"does not name {NAME}"),
        ("foreign", "certificate verify failed"),
        ("stripped", "offers no STARTTLS"),
        ("required-clear", "offers no STARTTLS"),
        ("pinned", "another certificate than was pinned"),
        ("nickname-name", f"does not name {NAME}"),
        ("broken-required", "shaking hands"),
    ],
)
def test_mail_waits_and_says_why(scene, case, words):
    peer = scene.send(case)
    assert words in scene.why(case)
    assert not peer.came
    assert any(f"{case}.example" in repr(entry) for entry in scene.gateway.queue())


@pytest.mark.parametrize("case", ["opportunistic-clear", "broken"])
def test_opportunistic_goes_in_clear_where_tls_cannot_be_had(scene, case):
    peer = scene.send(case)
    assert until(lambda: peer.came, 30, case)[0][1] == ""


def test_mail_that_waited_goes_when_the_peer_is_again_who_it_was(scene):
    for case in ("pinned-later", "name-later"):
        peer = scene.send(case)
        scene.why(case)
        peer.show(scene.right)
        until(lambda peer=peer: peer.came, 60, case)
