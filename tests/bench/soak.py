"""`make soak`: a million messages through a gateway that signs: none is lost, and at the end it needs no more memory than near the beginning.

    soak.py [--messages N] [--batch N]

It sends in batches, and waits after each until the queue is empty; the next hop counts, and hangs up when it has as many as were sent.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mailsec.store.spool_queue import list_queue
from tests.bench import gateway
from tests.bench.load import Load, Sink, feed
from tests.peers.gateway import until
from tests.peers.postfix import processes_below

GROWTH = 1.1
SLACK = 16.0
"""MiB that the memory may differ by in any case."""


def memory(pid: int) -> float:
    """Resident MiB of the fullest process."""
    found = []
    for process in processes_below(pid):
        try:
            found.append(int(Path(f"/proc/{process}/statm").read_text().split()[1]))
        except OSError:
            continue
    return max(found) * resource.getpagesize() / (1 << 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=10_000)
    arguments = parser.parse_args()
    sink = Sink()
    sent = 0
    seen: list[float] = []
    with tempfile.TemporaryDirectory(prefix="mailsec-soak-") as name:
        directory = Path(name) / "soak"
        with gateway.running(directory, sink, sign=True, key="ec-p256") as (port, pid):
            with sink.expecting(arguments.messages) as counting:
                while sent < arguments.messages:
                    batch = min(arguments.batch, arguments.messages - sent)
                    began = time.monotonic()
                    feed(port, Load(batch, 4096, 20, reuse=True), timeout=3600)
                    sent += batch
                    if sent < arguments.messages:
                        until(lambda: not list_queue(directory / "spool"), 3600, "an empty queue")
                    else:  # Whatever is lost ends this with an error.
                        counting.wait(3600)
                    seconds = time.monotonic() - began
                    seen.append(memory(pid))
                    print(f"{sent:>10,} of {arguments.messages:,}  {batch / seconds:8.0f} messages/s  {seen[-1]:7.1f} MiB", flush=True)
            with sink.expecting(1 << 30):  # what it had taken and not answered when it ended comes once more
                until(lambda: not list_queue(directory / "spool"), 120, "an empty queue")
            time.sleep(1.0)
    early = max(seen[: max(1, len(seen) // 5)])
    late = max(seen[-max(1, len(seen) // 5) :])
    flat = late <= max(early * GROWTH, early + SLACK)
    print(f"{sent:,} messages, none lost; {early:.1f} MiB in the first fifth, {late:.1f} MiB in the last: {'flat' if flat else 'GROWN'}")
    return 0 if flat else 1


if __name__ == "__main__":
    raise SystemExit(main())
