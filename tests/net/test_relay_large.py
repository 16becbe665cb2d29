"""A message of 100 MiB costs the spool and the relay a window, not its size (promise 9)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Sink:
    """A next hop that counts octets."""

    def __init__(self):
        self.octets = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        connection, _ = self.listener.accept()
        connection.sendall(b"220 sink\r\n")
        for reply in (b"250-sink\r\n250 8BITMIME\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            while not connection.recv(4096).endswith(b"\r\n"):
                pass
            connection.sendall(reply)
        last = b""
        while not last.endswith(b"\r\n.\r\n"):
            data = connection.recv(1 << 20)
            self.octets += len(data)
            last = (last + data)[-5:]
        connection.sendall(b"250 taken\r\n")


@pytest.mark.parametrize("kind", ["clear", "secret"])
def test_a_message_of_100_mib_costs_a_window(tmp_path, kind):
    sink = Sink()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, HERE / "relay_large.py", tmp_path, str(sink.listener.getsockname()[1]), kind]
    run = subprocess.run(command, env=environment, capture_output=True, timeout=90)
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    before, after = (int(line) for line in run.stdout.split() if line.isdigit())
    assert sink.octets > 100 * 1024 * 1024
    assert after - before < 32
