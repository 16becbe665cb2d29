"""A 100 MiB message through the gateway: what a worker needs above what it needs when idle (promise 9)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench import gateway
from tests.bench.load import Load, Sink, peak_memory, send

__all__ = ["signed_100_mib"]


def signed_100_mib() -> float:
    """MiB that the fullest worker needed at its peak, above its peak before the large message."""
    sink = Sink()
    with (
        tempfile.TemporaryDirectory(prefix="mailsec-bench-") as name,
        gateway.running(Path(name) / "memory", sink, sign=True, key="rsa-2048") as (port, pid),
    ):
        send(port, sink, Load(200, 4096, 4, reuse=False), timeout=60)
        idle = peak_memory(pid)
        send(port, sink, Load(1, 100 << 20, 1, reuse=False), timeout=120)
        after = peak_memory(pid)
        return max(after[label] - idle.get(label, 0.0) for label in after)
