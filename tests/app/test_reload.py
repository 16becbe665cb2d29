"""Reloads: a new generation of workers on the same sockets, while the old one finishes; and what people ask of a running mailsec."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailsec.app.control_socket import ask
from mailsec.app.operations import Operations
from mailsec.errors import Unavailable
from mailsec.store.spool_queue import list_queue
from tests.peers.inbox import Inbox
from tests.peers.postfix import free_port

from .conftest import PROJECT, Served, alive, until

MESSAGE = b"Subject: mail\r\n\r\nbody\r\n"


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with Inbox() as box:
        yield box


@pytest.fixture
def gateway(tmp_path, inbox) -> Iterator[Served]:
    served = Served(tmp_path, inbox.port, workers=2, retire_timeout=20)
    served.start().ready()
    yield served
    served.kill()


def command(served: Served, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mailsec", *words, "-c", str(served.configuration)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=False,
    )


def control(served: Served, **question: object) -> dict:
    return ask(str(served.directory / "run"), question, seconds=60)


def change(served: Served, before: str, after: str) -> None:
    text = served.configuration.read_text()
    assert before in text
    served.configuration.write_text(text.replace(before, after))


def session(served: Served) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", served.port, local_hostname="client.example", timeout=30)


def test_a_reload_disturbs_no_session_and_refuses_no_connection(gateway: Served, inbox: Inbox):
    before = gateway.workers()
    arrived = len(inbox.messages)
    waiting = [session(gateway) for _ in range(4)]
    middle = session(gateway)
    middle.ehlo()
    middle.mail("a@elsewhere.example")
    middle.rcpt("b@example.org")
    failures: list[Exception] = []
    sent = 0
    over = threading.Event()

    def flow() -> None:
        nonlocal sent
        while not over.is_set():
            try:
                with session(gateway) as client:
                    client.sendmail("a@elsewhere.example", ["b@example.org"], MESSAGE)
                    client.sendmail("a@elsewhere.example", ["b@example.org"], MESSAGE)
                sent += 2
            except (OSError, smtplib.SMTPException) as error:
                failures.append(error)

    flowing = threading.Thread(target=flow)
    flowing.start()
    try:
        answer = control(gateway, do="reload")
        assert answer["ok"], answer
        until(lambda count=sent: sent > count + 4, what="mail by the new generation")
    finally:
        over.set()
        flowing.join()
    assert not failures and answer["generation"] == 1
    after = gateway.workers()
    assert not set(after.values()) & set(before.values())
    # Sessions of the old generation go on as they began, and take mail.
    assert middle.data(MESSAGE)[0] == 250
    for client in (*waiting, middle):
        client.sendmail("a@elsewhere.example", ["b@example.org"], MESSAGE)
        client.quit()
    for pid in before.values():
        until(lambda pid=pid: not alive(pid), 20, "the old generation to end when its last session has")
    until(lambda: len(inbox.messages) == arrived + sent + 6, what="every message to arrive, each once")
    assert not gateway.events("worker died; it is replaced")


def test_a_wrong_configuration_changes_nothing_and_says_why(gateway: Served):
    before = gateway.workers()
    change(gateway, 'origin = "internet"', 'origin = "internt"')
    done = command(gateway, "reload")
    assert done.returncode == 78
    assert "mailsec.toml:" in done.stderr and 'did you mean "internet"?' in done.stderr
    assert done.stderr.splitlines()[-1] == "mailsec: 1 error; nothing was changed"
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: len(gateway.events("reload refused")) == 2, what="the refusal of the second")
    assert gateway.workers() == before
    with session(gateway) as client:
        assert client.noop()[0] == 250
    found = json.loads(command(gateway, "status", "--json").stdout)
    assert (found["state"], found["generation"], found["refused_reloads"]) == ("running", 0, 2)


def test_a_taken_port_refuses_the_reload_and_the_old_ports_go_on(gateway: Served):
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        more = f'[[listener]]\nname = "more"\naddress = "127.0.0.1:{taken}"\norigin = "internet"\n'
        gateway.configuration.write_text(gateway.configuration.read_text() + more)
        answer = control(gateway, do="reload")
    assert not answer["ok"] and "address already in use" in answer["errors"][0]["message"]
    session(gateway).quit()


def test_what_both_generations_share_cannot_move(gateway: Served):
    change(gateway, "[spool]\n", '[spool]\ndirectory = "elsewhere"\n')
    answer = control(gateway, do="reload")
    assert not answer["ok"] and "spool.directory: this changes only while mailsec is stopped" in answer["errors"][0]["message"]


def test_sighup_opens_new_ports_and_closes_old_ones(gateway: Served):
    other = free_port()
    change(gateway, f"127.0.0.1:{gateway.port}", f"127.0.0.1:{other}")
    change(gateway, "workers = 2", "workers = 1")
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: gateway.has("a new generation serves"), what="the reload")
    until(lambda: len(control(gateway, do="status")["workers"]) == 1, what="the old generation to end")
    with pytest.raises(ConnectionRefusedError):
        gateway.connect()
    gateway.port = other
    session(gateway).quit()
    assert control(gateway, do="status")["ports"] == [f"127.0.0.1:{other}"]


def test_promise_1_mail_that_waits_goes_to_the_new_generation(tmp_path):
    hop = free_port()
    served = Served(tmp_path, hop, workers=2)
    try:
        served.start().ready()
        for _ in range(4):
            with session(served) as client:
                client.sendmail("a@elsewhere.example", ["b@example.org"], MESSAGE)
        spool = str(served.directory / "spool")
        assert len(list_queue(spool)) == 4
        for generation in (1, 2):
            before = {entry.worker for entry in list_queue(spool)}
            assert control(served, do="reload")["generation"] == generation
            until(lambda: len(control(served, do="status")["workers"]) == 2, what="the old generation to end")
            until(lambda before=before: not {entry.worker for entry in list_queue(spool)} & before, what="every row to be taken over")
        assert len({entry.id for entry in list_queue(spool)}) == 4
        with Inbox(hop) as box:
            until(lambda: len(box.messages) == 4, what="delivery")
    finally:
        served.kill()


def test_drained_it_takes_nothing_delivers_what_it_has_and_a_reload_takes_mail_again(gateway: Served, inbox: Inbox):
    arrived = len(inbox.messages)
    with session(gateway) as client:
        client.ehlo()
        client.mail("a@elsewhere.example")
        client.rcpt("b@example.org")
        assert client.docmd("data")[0] == 354
        assert command(gateway, "drain").returncode == 0
        with pytest.raises(ConnectionRefusedError):
            gateway.connect()
        client.send(MESSAGE + b".\r\n")
        assert client.getreply()[0] == 250
        assert client.getreply()[0] == 421
        client.close()
    until(lambda: len(inbox.messages) == arrived + 1, what="delivery")
    shown = command(gateway, "status")
    assert shown.returncode == 1 and "is drained" in shown.stdout and "ports: none" in shown.stdout
    os.kill(gateway.workers()[0], signal.SIGKILL)  # who takes its place is drained, too
    until(lambda: len(gateway.events("worker is ready")) == 3, what="the replacement")
    assert command(gateway, "reload").returncode == 0
    session(gateway).quit()
    shown = command(gateway, "status")
    assert shown.returncode == 0 and "is running" in shown.stdout and f"127.0.0.1:{gateway.port}" in shown.stdout


def test_it_takes_mail_while_one_of_two_workers_is_replaced_and_is_not_well_when_none_comes_back():
    def worker(ready: bool) -> SimpleNamespace:
        return SimpleNamespace(ready=ready)

    serving = SimpleNamespace(workers={0: worker(False), 1: worker(False)}, orders=SimpleNamespace(listening=True))
    supervisor = SimpleNamespace(stopping=False, serving=serving, was_ready=False)
    operations = Operations(SimpleNamespace(under_way=False, supervisor=supervisor))  # type: ignore[arg-type]

    def health() -> tuple[object, ...]:
        found = operations.health()
        return found["state"], found["healthy"], found["ready"]

    assert health() == ("starting", True, False)
    serving.workers[1] = worker(True)
    assert health() == ("running", True, True)
    supervisor.was_ready = True
    del serving.workers[1]
    assert health() == ("starting", False, False)


def test_who_asks_nonsense_gets_an_answer_and_strangers_get_none(gateway: Served):
    path = gateway.directory / "run" / "control"
    assert path.stat().st_mode & 0o777 == 0o600
    for question in (b"GET / HTTP/1.1\n", b"[]\n", b'{"do": 1}\n', b"[" * 9000 + b"\n", b'{"do": "nothing"}\n'):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20)
            line.connect(str(path))
            line.sendall(question)
            answer = json.loads(line.makefile().readline())
            assert answer["ok"] is False and answer["hint"]
    assert "no PKCS#11 module" in control(gateway, do="token-login", token="x", pin="eA==")["error"]
    assert control(gateway, do="flush")["workers"] == control(gateway, do="wake")["workers"] == 2
    if os.geteuid() == 0:
        # Though somebody has opened the modes of the socket and its directory.
        path.chmod(0o666)
        path.parent.chmod(0o711)
        script = (
            "import os, socket, sys; os.chdir(sys.argv[1]); os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect('control')\n"
            "try:\n    s.sendall(b'{\"do\": \"status\"}\\n'); print(s.recv(10))\nexcept ConnectionError: print('hung up')\n"
        )
        done = subprocess.run([sys.executable, "-c", script, str(path.parent)], capture_output=True, text=True, timeout=20, check=False)
        assert done.stdout in ("b''\n", "hung up\n"), done
        until(lambda: gateway.has("a stranger asked this mailsec for something"), what="the line about it")


def test_where_nothing_runs_the_command_says_so(tmp_path):
    served = Served(tmp_path)
    done = command(served, "status")
    assert done.returncode == 75 and "mailsec is not running" in done.stderr and "Traceback" not in done.stderr


def test_a_control_socket_may_have_a_long_path(tmp_path):
    deep = tmp_path / ("d" * 90) / ("e" * 60)
    deep.mkdir(parents=True)
    with pytest.raises(Unavailable, match="not running"):
        ask(str(deep), {"do": "status"})
    script = (
        "import sys; from twisted.internet import reactor; from mailsec.app.control_socket import ControlSocket\n"
        "async def answer(question, progress):\n    return {'heard': question['do']}\n"
        "reactor.callWhenRunning(ControlSocket(reactor, sys.argv[1], answer).start); reactor.run()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(deep)], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    try:
        until(lambda: (Path(deep) / "control").exists(), what="the socket")
        assert ask(str(deep), {"do": "hello"})["heard"] == "hello"
    finally:
        process.kill()
        process.wait()
