"""The processes of `mailsec serve`: ready, replaced, drained, ended; what they may not leak."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailsec.app.control import LineReader, StartMessage
from mailsec.app.generation import Orders, Worker
from mailsec.app.hardening import fitting, raise_descriptors
from mailsec.app.ports import Ports
from mailsec.app.supervisor import Supervisor
from mailsec.model.limits import DEFAULT_LIMITS

from .conftest import PROJECT, Served, alive, free_port, until


def greeting(connection: socket.socket) -> bytes:
    return connection.recv(512)


def test_serve_says_ready_once_when_all_workers_listen(running: Served):
    assert len(running.workers()) == 2
    with running.connect() as connection:
        assert greeting(connection).startswith(b"220 gw.example.org")
    assert len(running.events("ready")) == 1


def test_sigterm_ends_every_process_and_frees_the_port(served: Served):
    served.start().ready()
    served.process.terminate()
    assert served.process.wait(15) == 0
    assert not any(alive(pid) for pid in served.workers().values())
    with pytest.raises(ConnectionRefusedError):
        served.connect()


def test_a_killed_worker_is_replaced_and_the_port_never_refuses(running: Served):
    before = running.workers()
    os.kill(before[0], signal.SIGKILL)
    for _ in range(20):
        running.connect().close()
    until(lambda: running.workers()[0] != before[0], what="the replacement")
    assert running.workers()[1] == before[1]
    assert "signal 9" in running.events("worker died; it is replaced")[0]["how"]


def test_all_workers_killed_at_once_are_replaced(running: Served):
    before = running.workers()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    with running.connect() as connection:
        # The connection waits in the socket that the supervisor holds.
        connection.settimeout(20)
        assert greeting(connection).startswith(b"220 ")
    until(lambda: not set(running.workers().values()) & set(before.values()), what="two replacements")


def test_workers_end_when_the_supervisor_is_killed(served: Served):
    served.start().ready()
    workers = served.workers()
    served.process.kill()
    served.process.wait(10)
    for pid in workers.values():
        until(lambda pid=pid: not alive(pid), 10, f"worker {pid} to end")
    # And the next one can begin at once.
    served.log.unlink()
    served.start().ready()


def test_sigterm_lets_a_message_be_finished(served: Served):
    served.start().ready()
    with served.connect() as connection, connection.makefile("rb") as replies:
        replies.readline()
        connection.sendall(b"HELO c\r\nMAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
        for _ in range(3):
            assert replies.readline().startswith(b"250")
        assert replies.readline().startswith(b"354")
        served.process.terminate()
        until(lambda: served.has("stopping"), what="the drain")
        served.process.terminate()  # `timeout` signals the process, and then its group
        connection.sendall(b"Subject: last\r\n\r\nbody\r\n.\r\n")
        assert replies.readline().startswith(b"250")
        assert replies.readline().startswith(b"421 4.3.2")
    assert served.process.wait(15) == 0


def test_a_second_sigterm_ends_it_at_once(tmp_path):
    served = Served(tmp_path, drain_timeout=600, workers=1)
    try:
        served.start().ready()
        with served.connect() as connection, connection.makefile("rb") as replies:
            replies.readline()
            connection.sendall(b"HELO c\r\nMAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
            for _ in range(4):
                replies.readline()
            served.process.terminate()
            until(lambda: served.has("stopping"), what="the drain")
            assert served.process.poll() is None
            # Within a second it counts as the first one; after that it does not.
            until(lambda: served.process.terminate() or served.process.poll() is not None, 10, what="the end")
        assert served.has("stopping at once")
        assert not any(alive(pid) for pid in served.workers().values())
    finally:
        served.kill()


def test_two_gateways_on_one_directory_are_refused(running: Served):
    second = serve(running.configuration)
    assert second.returncode == 78
    assert f"mailsec is running already (process {running.process.pid})" in second.stderr


def test_a_taken_port_is_said_with_file_and_line_and_nothing_is_started(served: Served):
    with socket.create_server(("127.0.0.1", served.port)):
        done = serve(served.configuration)
    assert done.returncode == 78
    assert re.search(r"mailsec\.toml:\d+: listener\[0\]\.address: cannot listen on 127\.0\.0\.1:\d+: address already in use", done.stderr)
    assert "1 error; nothing was started" in done.stderr


@pytest.mark.parametrize(("mistake", "code"), [("", 75), ("front = {}\n", 78)])
def test_a_database_that_is_away_is_tried_again_by_systemd_and_a_wrong_configuration_is_not(served: Served, mistake: str, code: int):
    away = f'location = "postgresql://mailsec@127.0.0.1:{free_port()}/mailsec"'
    text = re.sub(r"^location = .*\n", "", served.configuration.read_text(), flags=re.M)
    text = text.replace("\n[database]\n", f"\n[database]\n{away}\n", 1)
    served.configuration.write_text(text.replace("[[listener]]\n", f"[[listener]]\n{mistake}", 1))
    done = serve(served.configuration)
    assert done.returncode == code, done.stderr
    assert re.search(r"mailsec\.toml:\d+: database\.location: database \S+ cannot be reached", done.stderr)
    unit = (PROJECT / "contrib/systemd/mailsec.service").read_text()
    assert (str(code) in re.search(r"^RestartPreventExitStatus=(.*)$", unit, re.M)[1].split()) is (code == 78)


def test_a_wrong_configuration_starts_nothing(served: Served):
    text = served.configuration.read_text()
    served.configuration.write_text(text.replace('origin = "internet"', 'origin = "internt"').replace('method = "file"', 'method = "fiel"'))
    done = serve(served.configuration)
    assert done.returncode == 78
    assert 'did you mean "internet"?' in done.stderr and 'did you mean "file"?' in done.stderr
    assert done.stderr.splitlines()[-1] == "mailsec: 2 errors; nothing was started"
    assert not (served.directory / "run").exists() and not (served.directory / "spool").exists()


def test_promise_6_no_process_can_be_read_dumped_or_gain_privileges(running: Served):
    for pid in (running.process.pid, *running.workers().values()):
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Umask:\t0077" in status
        assert re.search(r"Max core file size +0 +0 ", Path(f"/proc/{pid}/limits").read_text())
        # A process that is not dumpable belongs to root in /proc, whoever runs it.
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
    passphrase = (running.directory / "passphrase").read_text().strip().partition(":")[2]
    for pid in running.workers().values():
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert passphrase.encode() not in shown
    assert passphrase not in running.log.read_text()


def test_promise_6_a_hardened_process_cannot_be_dumped():
    # root sees no difference in /proc, so the process is asked itself (PR_GET_DUMPABLE is 3).
    script = (
        "import ctypes; from mailsec.app.hardening import harden_process; harden_process(); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=True
    )
    assert done.stdout == "0\n"


def test_a_stuck_worker_is_killed_and_replaced(served: Served):
    # SIGSTOP is as silent as an endless loop; the times are those of tests.
    script = (
        "import sys; from mailsec.app import supervisor, cli\n"
        "import functools\n"
        "supervisor.Timing = functools.partial(supervisor.Timing, ping=0.1, silence=1.0)\n"
        "cli.main(sys.argv[1:])\n"
    )
    with served.log.open("ab") as log:
        served.process = subprocess.Popen(
            [sys.executable, "-c", script, "serve", "-c", str(served.configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
    served.ready()
    stuck = served.workers()[0]
    os.kill(stuck, signal.SIGSTOP)
    until(lambda: served.workers()[0] != stuck, what="the replacement")
    assert served.has("worker is silent; killing it")


def serve(configuration: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mailsec", "serve", "-c", str(configuration)],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=False,
    )


# -- parts ------------------------------------------------------------------------------------------------------------------------


def test_the_start_message_hides_its_secrets_and_reads_back():
    message = StartMessage(1, 2, 0, 3, (1, 3), True, "mailsec.toml", "[gateway]", b"\x00secret\xff")
    assert "secret" not in repr(message) and "gateway" not in repr(message)
    reader, writer = os.pipe()
    os.write(writer, message.encode())
    os.close(writer)
    from mailsec.app.control import read_start

    assert read_start(reader) == message


def test_control_lines_survive_any_splitting_and_garbage():
    data = b'{"is": "ready"}\nnonsense\n[1]\n{"is": "alive", "number": 3}\n'
    for size in (1, 2, 7, len(data)):
        reader = LineReader()
        found = [message for start in range(0, len(data), size) for message in reader.feed(data[start : start + size])]
        assert [message["is"] for message in found] == ["ready", "alive"]


def test_an_abandoned_unix_socket_is_taken_over_and_a_live_one_is_not(tmp_path):
    path = tmp_path / "smtp"
    first, problems = Ports().open([f"unix:{path}"])
    assert not problems and path.stat().st_mode & 0o777 == 0o660
    assert Ports().open([f"unix:{path}"])[1][0].hint == "another program listens there already"
    first[0].close()
    second, problems = Ports().open([f"unix:{path}"])
    assert not problems
    second[0].close()


def test_ports_are_all_opened_or_none(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        path = tmp_path / "s"
        sockets, problems = Ports().open([f"unix:{path}", f"127.0.0.1:{taken}", "192.0.2.1:2525"])
    assert sockets == []
    assert [problem.path for problem in problems] == [("listener", 1, "address"), ("listener", 2, "address")]


def test_a_log_line_from_outside_cannot_forge_another(tmp_path):
    file = tmp_path / "log"
    script = (
        "import structlog, sys; from mailsec.app.logs import configure_logs; from mailsec.app.config.models import Log\n"
        "configure_logs(Log(format=sys.argv[1], file=sys.argv[2])); log = structlog.get_logger()\n"
        "log.info('received', message_id='<a@b>\\n{\"event\": \"forged\"} \\x1b[31m\\u202e', n=1)\n"
    )
    for kind in ("json", "text"):
        file.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-c", script, kind, str(file)], check=True, env={**os.environ, "PYTHONPATH": str(PROJECT)})
        text = file.read_text()
        assert text.count("\n") == 1 and "\x1b" not in text and "\u202e" not in text
        if kind == "json":
            assert json.loads(text)["n"] == 1


def test_a_worker_that_can_no_longer_start_does_not_stop_those_that_serve():
    # Once all were ready, what is wrong lies around the configuration: a nickname that was deleted from the database, say.
    clock = Clock()
    clock.running = False
    supervisor = Supervisor(clock, orders=Orders("x", "", b"", 2, []), spool_directory="", environment={})
    worker = Worker(supervisor, supervisor.serving, 0, 0)
    supervisor.serving.workers[0] = worker
    supervisor.was_ready = True
    supervisor.worker_ended(worker, Failure(ProcessTerminated(78)))
    assert not supervisor.stopping and len(clock.getDelayedCalls()) == 1
    supervisor.was_ready = False
    supervisor.serving.workers[0] = worker
    supervisor.worker_ended(worker, Failure(ProcessTerminated(78)))
    assert supervisor.stopping and supervisor.exit_code == 78


def test_there_are_never_more_connections_than_descriptors_carry():
    assert raise_descriptors() >= 1024
    few = fitting(DEFAULT_LIMITS, 1024)
    assert (few.connections, few.outgoing_connections) == (256, 128)
    assert fitting(DEFAULT_LIMITS, 65_536) == DEFAULT_LIMITS


def test_promise_5_a_worker_has_the_descriptors_that_its_limits_count_on(running: Served):
    for pid in running.workers().values():
        limits = Path(f"/proc/{pid}/limits").read_text()
        soft, hard = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
        assert soft == hard or int(soft) >= 65_536
