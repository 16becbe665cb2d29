"""Who a mailbox's server must be, and what it is shown; sessions with it are taken up again; and UTF8 (RFC 6856) is passed on."""

from __future__ import annotations

import datetime as dt
import poplib
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailsec.app.control_socket import ask
from mailsec.store.certdb import CertDb
from tests.peers.gateway import Gateway
from tests.peers.maildrop import Maildrop
from tests.tls.issuing import Holder, Issuer

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
LETTER = "From: Jürgen <jürgen@partner.example>\r\nTo: alice@example.org\r\nSubject: Grüße\r\n\r\nhello\r\n".encode()


class Scene:
    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.ca, self.other = Issuer("Partner CA", at=NOW), Issuer("Other CA", at=NOW)
        self.us = self.ca.issue("gw.example.org", purpose="client")
        right, foreign = self.ca.issue("pop.partner.example"), self.other.issue("localhost")
        here = self.ca.issue("localhost")
        self.us.write(directory / "us")
        cases: dict[str, tuple[Holder, dict[str, object]]] = {
            "name": (right, {"server_name": "pop.partner.example"}),
            "wrong-name": (right, {}),
            "pinned": (foreign, {"pins": [f"key-sha256:{foreign.key_fingerprint}"]}),
            "pinned-wrong": (here, {"pins": [f"sha256:{foreign.fingerprint}"]}),
            "authority": (foreign, {"authority": "Other-CA"}),
            "authority-wrong": (here, {"authority": "Other-CA"}),
            "client": (here, {"certificate": f"file:{directory / 'us'}"}),
            "client-none": (here, {}),
        }
        self.servers = {
            case: stack.enter_context(Maildrop(self._context(directory, holder, case.startswith("client")), LETTER))
            for case, (holder, _) in cases.items()
        }
        listeners = [
            {
                "name": case,
                "protocol": "pop3",
                "origin": "mailbox",
                "tls": "implicit",
                "certificate": "Server-Cert",
                "upstream": {"to": f"pop3s://localhost:{self.servers[case].port}", "domains": ["example.org"], **demands},
            }
            for case, (_, demands) in cases.items()
        ]
        # The name of another server, at the very place of "pinned", under the usual demands.
        listeners.append({**listeners[0], "name": "stricter", "upstream": f"pop3s://localhost:{self.servers['pinned'].port}"})
        roots = directory / "roots.pem"
        roots.write_bytes(self.ca.pem)
        self.gateway = Gateway(
            directory / "gateway",
            1,
            workers=1,
            listeners=listeners,
            relay={"ca_file": str(roots)},
            gateway={"limits": {"message_size": 300_000}},
        )
        text = (self.gateway.directory / "passphrase").read_text().strip().removeprefix("internal:")
        with CertDb.open(str(self.gateway.directory / "mailsec.db"), password=text.encode()) as database:
            database.add(self.other.der, "Other-CA", at=NOW)
        self.trusting = ssl.create_default_context(cafile=str(self.gateway.ca_file))
        stack.callback(self.gateway.close)
        self.gateway.start()

    def _context(self, directory: Path, holder: Holder, asks: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*holder.write(directory / "keys", holder.fingerprint[:8]))
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.ca.pem.decode())
        return context

    def reader(self, case: str) -> poplib.POP3:
        return poplib.POP3_SSL("localhost", self.gateway.ports[case], context=self.trusting, timeout=30)

    def read(self, case: str) -> bytes:
        client = self.reader(case)
        client.user("alice")
        client.pass_("secret")
        lines = client.retr(1)[1]
        client.quit()
        return b"".join(line + b"\r\n" for line in lines)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("upstreams"), stack)


@pytest.mark.parametrize("case", ["name", "pinned", "authority", "client"])
def test_the_server_is_who_it_must_be(scene, case):
    assert scene.read(case).endswith(LETTER)
    if case == "client":
        assert ("commonName", "gw.example.org") in [pair for part in scene.servers[case].clients[0]["subject"] for pair in part]


@pytest.mark.parametrize("case", ["wrong-name", "pinned-wrong", "authority-wrong", "client-none"])
def test_no_password_for_somebody_else(scene, case):
    with pytest.raises(poplib.error_proto, match="cannot be reached"):
        scene.read(case)
    assert not scene.servers[case].said


def test_sessions_with_the_server_are_taken_up_again(scene):
    scene.read("name")
    scene.read("name")
    assert scene.servers["name"].sessions[-1]


def test_a_reload_forgets_sessions_also_where_clients_of_the_generation_before_go_on(scene):
    """A certificate was revoked, or its authority is believed no more: a session that was judged before is not taken up behind it."""
    for _ in range(2):
        scene.read("name")
    server = scene.servers["name"]
    assert server.sessions[-1]
    old = scene.reader("name")
    ask(str(scene.gateway.directory / "run"), {"do": "reload"}, seconds=60)
    old.user("alice")
    old.pass_("secret")
    old.quit()
    assert not server.sessions[-1]
    scene.read("name")
    assert not server.sessions[-1]


def test_a_session_of_a_pinned_server_is_not_taken_up_where_its_name_is_demanded(scene):
    for _ in range(2):
        scene.read("pinned")
    assert scene.servers["pinned"].sessions[-1]
    with pytest.raises(poplib.error_proto, match="cannot be reached"):
        scene.read("stricter")


def test_message_too_large_to_look_into_comes_whole_and_the_session_goes_on(scene):
    """Twice `message_size` and a mebibyte, where a list without end would be given up."""
    large = LETTER + b"".join(b".%060d\r\n" % number for number in range(50_000))
    server = scene.servers["name"]
    server.messages.append(large)
    client = scene.reader("name")
    client.user("alice")
    client.pass_("secret")
    lines = client.retr(2)[1]
    assert lines[0].startswith(b"Authentication-Results: gw.example.org; smime=permerror")
    assert b"".join(line + b"\r\n" for line in lines).endswith(large)
    assert LETTER.splitlines()[0] in client.retr(1)[1]
    client.quit()
    server.messages.pop()


def test_utf8_is_said_to_a_server_that_offers_it(scene):
    server = scene.servers["name"]
    client = scene.reader("name")
    assert "UTF8" in client.capa()
    client._shortcmd("UTF8")
    client.user("alice")
    client.pass_("secret")
    assert server.said[-4:] == [b"CAPA", b"UTF8", b"USER alice", b"PASS secret"]
    assert "Subject: Grüße".encode() in client.retr(1)[1]
    client.quit()


def test_utf8_is_not_said_unasked_nor_where_it_is_not_offered(scene):
    server = scene.servers["name"]
    scene.read("name")
    assert b"UTF8" not in server.said[-6:]
    server.capabilities = ()
    client = scene.reader("name")
    client._shortcmd("UTF8")
    client.user("alice")
    client.pass_("secret")
    assert server.said[-3:] == [b"CAPA", b"USER alice", b"PASS secret"]
    client.quit()
    server.capabilities = ("UTF8",)
