"""A token host's socket: for whom keys are used, how often, what is written about it, and what a peer's nonsense costs."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsec.errors import CryptoError, KeyUnavailable, TokenError
from mailsec.keys.frames import FrameReader, Verb, error_of, frame, json_frame, read_json
from mailsec.testing.authority import Authority
from mailsec.tokens.desk import Desk
from mailsec.tokens.given import given_certificates, joined
from mailsec.tokens.host import HostServer
from mailsec.tokens.module import Module
from mailsec.tokens.remote import RemoteModule
from mailsec.x509.issue import make_key, public_key_of
from tests.peers.gateway import until

DATA = bytes(32)


class Served:
    """A desk behind a socket in this process, and what it has written."""

    def __init__(self, module: Module, directory: Path, threads: int = 2) -> None:
        self.module = module
        self.written: list[tuple[str, dict]] = []
        self.now = 0.0
        self.held: list[tuple[str, dict]] = []
        self.flushes = 0
        self.desk = Desk(module, self.write, audit=self.hold, uses_per_minute=0, monotonic=lambda: self.now)
        self.desk.configure({"pins": {"HSM 1": "MTIzNA=="}})
        self.server = HostServer(self.desk, self.write, threads=threads, flush=self.flush)
        self.path = str(directory / "host.sock")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self.path)
        listening.listen()
        self.server.listen(listening)
        self.parent, theirs = socket.socketpair()
        self.server.attend(theirs)
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()
        self.remote = RemoteModule("soft", self.path, seconds=10)
        until(lambda: any(token.logged_in for token in self.remote.tokens()), what="the login")

    def write(self, event: str, **fields: object) -> None:
        self.written.append((event, fields))

    def hold(self, event: str, **fields: object) -> None:
        """Lines about uses of keys are written by `flush`."""
        self.held.append((event, fields))

    def flush(self) -> None:
        self.flushes += 1
        while self.held:
            self.written.append(self.held.pop(0))

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(self.path)
        return connection

    def tell(self, value: dict) -> dict:
        """As the supervisor does."""
        self.parent.settimeout(10)
        self.parent.sendall(json_frame(Verb.CONFIGURE, 7, value))
        return next(read_json(one) for one in answers(self.parent) if one.number == 7)

    def close(self) -> None:
        self.remote.close()
        self.parent.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


def answers(connection: socket.socket) -> Iterator:
    reader = FrameReader()
    while data := connection.recv(262_144):
        yield from reader.feed(data)


@pytest.fixture(scope="module")
def key(module: Module):
    made = module.generate_key("HSM 1", "p256", "mail-2026")
    module.import_certificate("HSM 1", Authority().certify(made.public_key, "dave@example.org"), "mail-2026")
    return made


@pytest.fixture
def served(module: Module, key, tmp_path) -> Iterator[Served]:
    made = Served(module, tmp_path)
    yield made
    made.close()


def test_a_signature_for_the_right_address_is_made_and_written_down(served: Served, key):
    assert len(served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")) == 64
    assert served.written[-1] == (
        "key used",
        {"key": "HSM 1:mail-2026", "usage": "sign", "address": "dave@example.org", "operation": "CKM_ECDSA"},
    )


@pytest.mark.parametrize("address", ["erin@example.org", "dave@example.net", "", "nonsense", "dave@example.org\n", "@example.org", "*"])
def test_promise_8_a_worker_that_was_taken_over_signs_for_nobody_else(served: Served, key, address: str):
    with pytest.raises(CryptoError):
        served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, address)
    with pytest.raises(CryptoError):
        served.remote.derive("HSM 1", key.id, "CKM_ECDH1_DERIVE", DATA, address)
    assert served.written[-1][0] == "key not used"


def test_promise_8_assignments_of_the_database_replace_those_of_the_certificate(served: Served, key):
    rows = [["@lists.example", "sign"]]
    served.tell({"assigned": {hashlib.sha256(key.public_key).hexdigest(): rows}})
    assert served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "a@lists.example")
    for verb, address in ((served.remote.sign, "dave@example.org"), (served.remote.derive, "a@lists.example")):
        with pytest.raises(CryptoError, match="not assigned"):
            verb("HSM 1", key.id, "CKM_ECDSA" if verb == served.remote.sign else "CKM_ECDH1_DERIVE", DATA, address)


def test_attack_only_the_supervisor_configures(served: Served, key):
    with served.connect() as worker:
        worker.sendall(json_frame(Verb.CONFIGURE, 1, {"assigned": {hashlib.sha256(key.public_key).hexdigest(): [["*", ""]]}}))
        answer = next(answers(worker))
        assert answer.verb == Verb.ERROR and "has a supervisor" in error_of(answer).message
    with pytest.raises(CryptoError):
        served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "anybody@example.net")


def test_a_host_of_systemd_takes_the_first_that_configures_as_its_supervisor(module: Module, tmp_path):
    server = HostServer(Desk(module, lambda *_, **__: None), lambda *_, **__: None, threads=1)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "host.sock"))
    listening.listen()
    server.listen(listening)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        connections = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for connection, verb in zip(connections, (Verb.RESULT, Verb.ERROR), strict=True):
            connection.settimeout(10)
            connection.connect(str(tmp_path / "host.sock"))
            connection.sendall(json_frame(Verb.CONFIGURE, 1, {"assigned": {}}))
            assert next(one for one in answers(connection) if one.number == 1).verb == verb
        for connection in connections:
            connection.close()
    finally:
        server.stop()
        thread.join(10)


def test_attack_a_sender_who_has_too_much_signed_waits_and_others_do_not(served: Served, key):
    served.desk._uses_per_minute = 3
    served.tell({"assigned": {hashlib.sha256(key.public_key).hexdigest(): [["@example.org", ""]]}})
    for _ in range(3):
        served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")
    with pytest.raises(KeyUnavailable, match="more than 3 times a minute") as caught:
        served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")
    assert caught.value.stage == "token:HSM 1"
    assert served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "erin@example.org")
    served.now += 21.0
    assert served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 100, frame(77, 1), frame(Verb.SIGN, 1)[:-1] + b"\0" * 20])
def test_attack_nonsense_costs_its_connection_and_nobody_else(served: Served, key, octets: bytes):
    with served.connect() as stranger:
        stranger.sendall(octets)
        # Perhaps an answer to what was a question, and then the end.
        while stranger.recv(100):
            pass
    assert served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")


@pytest.mark.parametrize("fields", [(), (b"HSM 1",), (b"HSM 1", b"", b"", b"", b"", b""), (b"\xff", b"\xff", b"\xff", b"\xff", b"\xff")])
def test_attack_wrong_fields_are_an_error_and_no_crash(served: Served, fields: tuple[bytes, ...]):
    with served.connect() as worker:
        for verb in (Verb.SIGN, Verb.DECRYPT, Verb.DERIVE, Verb.LOGIN):
            worker.sendall(frame(verb, 1, *fields))
            assert next(answers(worker)).verb == Verb.ERROR


def test_attack_another_user_is_turned_away(served: Served):
    served.server._users = frozenset({os.geteuid() + 1})
    with served.connect() as stranger:
        assert stranger.recv(100) == b""
    assert served.written[-1][0] == "a stranger was turned away"


def test_a_host_changes_nothing_on_its_tokens(served: Served, key):
    with pytest.raises(TokenError, match="changes nothing"):
        served.remote.delete_key("HSM 1", key.id)
    with pytest.raises(TokenError):
        served.remote.generate_key("HSM 1", "p256", "x")


def test_what_a_host_lists_is_what_the_module_lists(served: Served, key, module: Module):
    assert {one.der for one in served.remote.certificates("HSM 1")} == {one.der for one in module.certificates("HSM 1")}
    assert [one.public_key for one in served.remote.keys("HSM 1")] == [one.public_key for one in module.keys("HSM 1")]
    assert "CKM_ECDSA" in {one.name for one in served.remote.mechanisms("HSM 1")}


def test_a_pin_that_somebody_types_goes_to_the_supervisor_if_it_is_right(served: Served):
    served.module.token("HSM 10").close()
    with pytest.raises(TokenError, match="refuses the PIN"):
        served.remote.login("HSM 10", b"wrong")
    served.remote.login("HSM 10", b"pin with blanks ")
    served.parent.settimeout(10)
    told = next(one for one in answers(served.parent) if one.verb == Verb.LOGGED_IN)
    assert told.fields == (b"HSM 10", b"pin with blanks ")
    assert not any("blanks" in str(one) for one in served.written)


def test_attack_a_worker_that_was_taken_over_cannot_block_a_card_with_wrong_pins(served: Served, module: Module):
    module.token("HSM 10").close()
    for _ in range(2):
        with pytest.raises(TokenError, match="refuses the PIN"):
            served.remote.login("HSM 10", b"wrong")
    for pin in (b"wrong", b"pin with blanks "):
        with pytest.raises(TokenError, match="2 wrong PINs were given"):
            served.remote.login("HSM 10", pin)
    # A person with a process of their own may.
    module.token("HSM 10").login(b"pin with blanks ", person=True)
    assert module.token("HSM 10").logged_in()


def test_a_pin_that_was_not_tried_is_not_kept(served: Served, key):
    """C_Login says that somebody is logged in, and looks at no PIN: a typing mistake would be tried after the next crash."""
    with pytest.raises(TokenError, match="is logged in already"):
        served.remote.login("HSM 1", b"a typing mistake")
    served.module.token("HSM 1").login(b"a typing mistake", person=True)
    served.module.token("HSM 1").functions.logout(served.module.token("HSM 1").anchor)
    assert served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")


def test_it_ends_with_its_supervisor(served: Served):
    served.parent.close()
    served.thread.join(10)
    assert not served.thread.is_alive()


def told(certificate: bytes, label: str = "of the database") -> dict:
    return {"certificates": [{"label": label, "der": base64.b64encode(certificate).decode(), "chain": []}]}


def test_a_certificate_of_the_database_says_for_whom_a_key_on_the_token_is(served: Served, module: Module):
    bare = module.generate_key("HSM 1", "p256", "bare")
    certificate = Authority().certify(bare.public_key, "gina@example.org")
    with pytest.raises((CryptoError, KeyUnavailable)):
        served.remote.sign("HSM 1", bare.id, "CKM_ECDSA", DATA, "gina@example.org")
    served.tell(told(certificate))
    assert len(served.remote.sign("HSM 1", bare.id, "CKM_ECDSA", DATA, "gina@example.org")) == 64
    assert served.written[-1][1]["key"] == "HSM 1:of the database"
    with pytest.raises(CryptoError):
        served.remote.sign("HSM 1", bare.id, "CKM_ECDSA", DATA, "dave@example.org")
    assert [(one.label, one.id) for one in served.remote.certificates("HSM 1") if one.der == certificate] == [("of the database", bare.id)]
    served.tell({"assigned": {hashlib.sha256(bare.public_key).hexdigest(): [["sales@example.org", ""]]}})
    with pytest.raises(CryptoError):
        served.remote.sign("HSM 1", bare.id, "CKM_ECDSA", DATA, "gina@example.org")
    served.tell({"assigned": None})
    with pytest.raises(CryptoError):
        served.remote.sign("HSM 1", bare.id, "CKM_ECDSA", DATA, "gina@example.org")


def test_attack_a_certificate_of_the_database_joins_no_key_but_its_own(served: Served, key):
    """Its label, its address or its place in the list say nothing: the key must be the one that it names."""
    stranger = Authority().certify(public_key_of(make_key("ec-p256")), "gina@example.org")
    served.tell(told(stranger, "mail-2026"))
    assert not [one for one in served.remote.certificates("HSM 1") if one.der == stranger]
    with pytest.raises(CryptoError):
        served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "gina@example.org")
    served.tell(
        {"certificates": [{"label": "x"}, 7, {"label": "x", "der": "not base64 \u00e9", "chain": []}, told(stranger)["certificates"][0]]}
    )
    assert served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")


def test_a_card_that_is_not_logged_in_keeps_the_certificates_of_its_keys(module: Module, tmp_path):
    """Nobody sees a private key before the login: mail for it waits, and is not told that there is no key."""
    bare = module.generate_key("HSM 1", "p256", "locked away")
    certificate = Authority().certify(bare.public_key, "hana@example.org")
    row = {"label": "hana", "id": bare.id.hex(), "der": base64.b64encode(certificate).decode(), "has_key": True, "given": True}
    before = {"name": "HSM 1", "certificates": [row]}
    given = given_certificates(told(certificate, "hana")["certificates"])
    assert [one.id for one in joined(given, "HSM 1", [], [], before)] == [bare.id]
    assert joined(given, "HSM 1", [], [], None) == [] and joined((), "HSM 1", [], [], before) == []
    assert joined(given, "HSM 1", [bare], [certificate], before) == [], "it lies on the card itself"


def test_attack_assignments_that_cannot_be_believed_make_a_key_one_for_nobody(served: Served, key):
    assert served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")
    served.tell({"assigned": None})
    for address in ("dave@example.org", ""):
        with pytest.raises(CryptoError):
            served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, address)
