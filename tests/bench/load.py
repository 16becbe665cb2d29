"""Load and sink from Debian's postfix package, and what a run of them is measured by."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.peers.postfix import free_port, processes_below, wait_for_port

__all__ = ["Load", "Sink", "feed", "peak_memory", "send"]


@dataclass(frozen=True)
class Load:
    """How many messages of which size, over how many sessions at once; `reuse`: each session carries many messages."""

    messages: int
    octets: int
    sessions: int
    reuse: bool
    letter: Path | None = None
    """A message to send as it is (from bob, for alice), instead of so many octets of text (from alice, for bob)."""
    answered: bool = False
    """True where the client's 250 says that the sink has it (proxy mode): the sink, which hangs up on the last one, stays then."""

    @property
    def name(self) -> str:
        size = f"{self.octets // 1024} KiB" if self.octets < 1 << 20 else f"{self.octets >> 20} MiB"
        return f"{size}, {'reused' if self.reuse else 'new'} connections"


class Sink:
    """smtp-sink on a port that stays the same for all runs: it ends by itself when the wanted number of messages has come."""

    def __init__(self) -> None:
        self.port = free_port()

    @contextlib.contextmanager
    def expecting(self, messages: int) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            ["smtp-sink", "-u", "nobody", "-M", str(messages), f"127.0.0.1:{self.port}", "500"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            wait_for_port(self.port, 10, process)
            yield process
        finally:
            process.kill()
            process.wait()


def feed(port: int, load: Load, *, timeout: float) -> None:
    """Send `load` to `port`, and return when all of it was taken."""
    command = ["smtp-source", "-s", str(load.sessions), "-m", str(load.messages)]
    if load.letter is None:
        command += ["-l", str(load.octets), "-f", "alice@example.org", "-t", "bob@example.net", "-S", "figures"]
    else:
        command += ["-F", str(load.letter), "-f", "bob@example.net", "-t", "alice@example.org"]
    if load.reuse:
        command.append("-d")
    subprocess.run([*command, f"127.0.0.1:{port}"], check=True, timeout=timeout, capture_output=True)


def send(port: int, sink: Sink, load: Load, *, timeout: float) -> float:
    """Send `load` to `port` and return the seconds until the sink has received all of it."""
    with sink.expecting(1 << 30 if load.answered else load.messages) as process:
        start = time.monotonic()
        feed(port, load, timeout=timeout)
        if not load.answered:
            process.wait(timeout)
        return time.monotonic() - start


def peak_memory(pid: int) -> dict[str, float]:
    """Peak resident MiB of `pid` and of each process below it, by command line."""
    peaks: dict[str, float] = {}
    for process in processes_below(pid):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process}/status").read_text()
            name = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    peaks[f"{process} {name[-60:]}"] = int(line.split()[1]) / 1024
    return peaks
