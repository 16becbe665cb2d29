"""A token host beside a bare loop over C_Sign in one process, with the same module (SoftHSM2): rates, and what the way there adds.

The loop calls C_SignInit and C_Sign through ctypes and nothing else. The client of the host is another process, with as many questions on
the way as workers have under load; what it adds to one signature is measured with one question at a time.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from mailsec.keys.frames import FrameReader, Verb, frame, json_frame
from mailsec.tokens.mechanisms import ck_mechanism
from mailsec.tokens.module import Module
from mailsec.tokens.remote import RemoteModule
from mailsec.tokens.state import StateDirectory
from tests.peers.softhsm import LIBRARY, SoftHsm

__all__ = ["figures", "goals"]

SECONDS = 2.0
ROUNDS = 3
IN_FLIGHT = 32
KEYS = {"RSA-2048": ("rsa-2048", "CKM_RSA_PKCS", b"x" * 51), "P-256": ("p256", "CKM_ECDSA", b"x" * 32)}


def figures() -> dict[str, float]:
    """Rates and shares: medians of rounds in which all are taken in turn."""
    if not LIBRARY:
        return {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        hsm = SoftHsm(directory / "hsm")
        hsm.add("bench", "1234")
        os.environ.update(hsm.environment)
        keys = _in_child(directory, "make")
        hosts = {threads: _Host(directory, threads) for threads in (1, 2)}
        found: dict[str, float] = {}
        try:
            for what in KEYS:
                bare: list[float] = []
                through: dict[int, list[float]] = {1: [], 2: []}
                added = []
                for _ in range(ROUNDS):
                    rate, median = _in_child(directory, "bare", what, keys[what])
                    bare.append(rate)
                    for threads, host in hosts.items():
                        through[threads].append(host.rate(what, keys[what]))
                    added.append(hosts[1].median(what, keys[what]) - median)
                found[f"token host, {what}, bare loop over C_Sign/s"] = statistics.median(bare)
                found[f"token host, {what}, one thread, signatures/s"] = statistics.median(through[1])
                found[f"token host, {what}, two threads, signatures/s"] = statistics.median(through[2])
                shares = [one / other for one, other in zip(through[1], bare, strict=True)]
                scales = [two / one for two, one in zip(through[2], through[1], strict=True)]
                found[f"token host, {what}, one thread, share of the bare loop"] = statistics.median(shares)
                found[f"token host, {what}, two threads to one"] = statistics.median(scales)
                found[f"token host, {what}, added latency at the median, ms"] = statistics.median(added) * 1000
        finally:
            for host in hosts.values():
                host.close()
    return found


def goals(limits: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """(What, figure, must, aim) of those that were measured."""
    wanted = {
        "token host, RSA-2048, one thread, share of the bare loop": (0.85, 0.95),
        "token host, P-256, one thread, share of the bare loop": (0.35, 0.6),
        "token host, RSA-2048, two threads to one": (1.5, 1.9),
        "token host, RSA-2048, added latency at the median, ms": (0.15, 0.1),
        "token host, P-256, added latency at the median, ms": (0.15, 0.1),
    }
    return [
        (f"{name} (at most)" if name.endswith("ms") else name, limits[name], must, aim)
        for name, (must, aim) in wanted.items()
        if name in limits
    ]


class _Host:
    """A token host as `mailsec serve` starts it."""

    def __init__(self, directory: Path, threads: int) -> None:
        ours, theirs = socket.socketpair()
        self.path = str(directory / f"host-{threads}.sock")
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"import os; os.dup2({theirs.fileno()}, 3); from mailsec.app.token_host import main; main()"],
                pass_fds=[theirs.fileno()],
                stderr=(directory / f"host-{threads}.log").open("wb"),
            )
        self.ours = ours
        settings = {
            "name": "bench",
            "library": SoftHsm.library,
            "nss": "",
            "parameters": None,
            "socket": self.path,
            "state": str(directory / f"state-{threads}"),
            "threads": threads,
            "uses_per_minute": 0,
            "log": {"format": "json", "privacy": "none"},
            "shared": False,
        }
        ours.sendall(json_frame(Verb.CONFIGURE, 0, {"settings": settings, "pins": {"bench": "MTIzNA=="}, "proven": [], "assigned": {}}))
        while not Path(self.path).exists():
            assert self.process.poll() is None, (directory / f"host-{threads}.log").read_text()
            time.sleep(0.05)
        self.remote = RemoteModule("bench", self.path)
        while not any(token.logged_in for token in self.remote.tokens()):
            time.sleep(0.05)

    def rate(self, what: str, key_id: str) -> float:
        """Signatures a second with many questions on the way."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.path)
            fields = _fields(what, key_id)
            reader, count, number = FrameReader(), 0, 0
            for number in range(1, IN_FLIGHT + 1):
                connection.sendall(frame(Verb.SIGN, number, *fields))
            began = time.perf_counter()
            while time.perf_counter() < began + SECONDS:
                answers = list(reader.feed(connection.recv(262_144)))
                assert all(answer.verb == Verb.RESULT for answer in answers), answers
                count += len(answers)
                connection.sendall(b"".join(frame(Verb.SIGN, number + index, *fields) for index in range(len(answers))))
            return count / (time.perf_counter() - began)

    def median(self, what: str, key_id: str) -> float:
        """Seconds of one signature, asked for alone."""
        _, operation, data = KEYS[what]
        times: deque[float] = deque()
        for _ in range(1000):
            began = time.perf_counter()
            self.remote.sign("bench", bytes.fromhex(key_id), operation, data, "bench@example.org")
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def close(self) -> None:
        self.remote.close()
        self.ours.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


def _fields(what: str, key_id: str) -> tuple[bytes, ...]:
    _, operation, data = KEYS[what]
    return b"bench", bytes.fromhex(key_id), operation.encode(), b"bench@example.org", data


def _in_child(directory: Path, *arguments: str):
    """Something in a process of its own: a library is never loaded in one that goes on to start others."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.tokens", str(directory), *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def _make(module: Module) -> dict[str, str]:
    from mailsec.testing.authority import Authority

    found = {}
    for what, (kind, _, _) in KEYS.items():
        key = module.generate_key("", kind, what)
        module.import_certificate("", Authority().certify(key.public_key, "bench@example.org"), what)
        found[what] = key.id.hex()
    return found


def _bare(module: Module, what: str, key_id: str) -> tuple[float, float]:
    """Signatures a second in a loop that does nothing else, and the median of the seconds of one."""
    _, operation, data = KEYS[what]
    token = module.token("")
    token.sign(bytes.fromhex(key_id), operation, data)
    functions, session = token.functions, token.session()
    handle, mechanism = token.keys[bytes.fromhex(key_id)].handle, ctypes.byref(ck_mechanism(operation))
    start, finish = functions._sign_init, functions._sign
    room, length = ctypes.create_string_buffer(512), ctypes.c_ulong()
    size, by_reference = len(data), ctypes.byref(length)
    times: list[float] = []
    for _ in range(1000):
        began = time.perf_counter()
        start(session, mechanism, handle)
        length.value = 512
        finish(session, data, size, room, by_reference)
        times.append(time.perf_counter() - began)
    count, began = 0, time.perf_counter()
    while time.perf_counter() < began + SECONDS:
        for _ in range(50):
            start(session, mechanism, handle)
            length.value = 512
            finish(session, data, size, room, by_reference)
        count += 50
    return count / (time.perf_counter() - began), statistics.median(times)


if __name__ == "__main__":
    with Module("bench", SoftHsm.library, state=StateDirectory(Path(sys.argv[1]) / "state")) as bench:
        bench.login("", b"1234")
        print(json.dumps(_make(bench) if sys.argv[2] == "make" else _bare(bench, *sys.argv[3:])))
