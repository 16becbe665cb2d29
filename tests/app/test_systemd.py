"""What systemd gives and is told: ports that it opened, READY, WATCHDOG, RELOADING, STOPPING; and the files for it and for containers."""

from __future__ import annotations

import os
import re
import smtplib
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mailsec.app.cli import COMMANDS
from mailsec.app.control_socket import ask
from mailsec.app.systemd import Notifier

from .conftest import PROJECT, Served, until


def test_systemd_opens_the_port_and_hears_how_it_goes(tmp_path):
    served = Served(tmp_path, workers=1)
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, socket.create_server(("127.0.0.1", served.port)) as port:
        heard.bind(f"\0mailsec-test-{os.getpid()}-{served.port}")
        heard.setblocking(False)

        def said(word: str) -> bool:
            try:
                while True:
                    told.append(heard.recv(4096).decode())
            except BlockingIOError:
                return any(word in one.splitlines() for one in told)

        # sd_listen_fds(3): descriptors from 3 on, for the process whose pid LISTEN_PID is.
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
            "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        command = [sys.executable, "-c", script, str(port.fileno()), "-m", "mailsec", "serve", "-c", str(served.configuration)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "NOTIFY_SOCKET": "@" + heard.getsockname()[1:].decode()}
        try:
            with served.log.open("ab") as log:
                served.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=[port.fileno()]
                )
            served.ready()
            until(lambda: said("READY=1"), what="READY")
            assert f"MAINPID={served.process.pid}" in "\n".join(told)
            with smtplib.SMTP("127.0.0.1", served.port, timeout=30) as client:
                assert client.noop()[0] == 250
            until(lambda: said("WATCHDOG=1"), what="WATCHDOG")
            for pid in served.workers().values():
                assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
            told.clear()
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert ask(str(tmp_path / "run"), {"do": "reload"}, seconds=60)["ok"]
            until(lambda: said("READY=1"), what="READY after the reload")
            (reloading,) = (one for one in told if one.startswith("RELOADING=1\n"))
            assert int(re.search(r"MONOTONIC_USEC=(\d+)", reloading)[1]) >= before
            assert told.index(reloading) < next(place for place, one in enumerate(told) if one.startswith("READY=1"))
            smtplib.SMTP("127.0.0.1", served.port, timeout=30).quit()
            told.clear()
            served.process.terminate()
            assert served.process.wait(20) == 0
            assert said("STOPPING=1")
            # The port is systemd's: it stays open for the next start.
            socket.create_connection(("127.0.0.1", served.port), timeout=5).close()
        finally:
            served.kill()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, float("inf")),
        ({"WATCHDOG_USEC": "0"}, float("inf")),
        ({"WATCHDOG_USEC": "-1"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_the_watchdog_of_the_unit_says_how_often_it_hears_of_us(said: dict[str, str], seconds: float):
    environment = {"NOTIFY_SOCKET": "/nowhere", "PATH": "/bin", **said}
    assert Notifier.taken_from(environment).patience == seconds
    assert environment == {"PATH": "/bin"}


def test_the_socket_unit_names_ports_of_an_example_as_its_listeners_do(need, tmp_path):
    unit = (PROJECT / "contrib/systemd/mailsec.socket").read_text()
    example = (PROJECT / "contrib/in-front-of-dovecot/mailsec.toml").read_text()
    for address in re.findall(r"^ListenStream=(.+)$", unit, re.MULTILINE):
        assert f'address = "{address}"' in example
    analyze = need("systemd-analyze", "systemd")
    (tmp_path / "mailsec.socket").write_text(unit)
    service = re.sub(r"(ExecStart|ExecReload)=\S+", rf"\1={sys.executable}", (PROJECT / "contrib/systemd/mailsec.service").read_text())
    (tmp_path / "mailsec.service").write_text(service)
    done = subprocess.run([analyze, "verify", "--man=no", str(tmp_path / "mailsec.socket")], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "mailsec.s" not in done.stderr, done.stderr


def test_the_container_runs_commands_that_exist_without_root():
    lines = (PROJECT / "contrib/container/Containerfile").read_text().splitlines()
    said = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines if re.match(r"[A-Z]+ ", line)}
    assert said["USER"] == "mailsec" and said["ENTRYPOINT"] == '["mailsec"]'
    # Both belong to mailsec's user, which a tmpfs would not.
    assert said["VOLUME"].split() == ["/var/lib/mailsec", "/run/mailsec"]
    called = [re.findall(r'"([a-z]+)"', said["CMD"])[0], re.search(r'"mailsec", "([a-z]+)"', said["HEALTHCHECK"])[1]]
    assert all(name in COMMANDS for name in called)
    assert not any(line.startswith("ENV") and "PASS" in line for line in lines)
