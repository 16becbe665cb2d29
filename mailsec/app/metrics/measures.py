"""What one worker has counted: sums since its start, and what it saw when it last looked. A dictionary each; counting costs next to nothing.

The one invariant: a metric never has more than `MOST` series in a worker; what comes after that is counted together as "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final

from mailsec.app.metrics.catalogue import CATALOGUE

__all__ = ["MOST", "Measures"]

MOST: Final = 200

Labels = tuple[str, ...]


class Measures:
    """`count` and `observe` as things happen, `look` for what is so at this moment, `snapshot` for the supervisor."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Labels, float]] = {}
        self._times: dict[str, dict[Labels, list[float]]] = {}
        self._seen: dict[str, dict[Labels, float]] = {}

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """So many more of a counter."""
        series = self._counts.setdefault(name, {})
        key = self._key(series, labels)
        series[key] = series.get(key, 0) + by

    def observe(self, name: str, value: float, *labels: str) -> None:
        """One more value of a histogram: its buckets' counts, then the sum."""
        series = self._times.setdefault(name, {})
        key = self._key(series, labels)
        known = series.get(key)
        buckets = CATALOGUE[name].buckets
        if known is None:
            known = series[key] = [0.0] * (len(buckets) + 2)
        known[bisect_left(buckets, value)] += 1
        known[-1] += value

    def look(self, name: str, values: Mapping[Labels, float]) -> None:
        """What a gauge (or a counter that the system keeps) is now, by its labels."""
        self._seen[name] = dict(list(values.items())[:MOST])

    def snapshot(self) -> dict[str, list[list[Any]]]:
        """As it goes over the pipe: name to [labels, value]; the value of a histogram is a list."""
        return {
            name: [[list(labels), value] for labels, value in series.items()]
            for kind in (self._counts, self._times, self._seen)
            for name, series in kind.items()
        }

    @staticmethod
    def _key(series: Mapping[Labels, object], labels: Labels) -> Labels:
        if labels in series or len(series) < MOST:
            return labels
        return ("other",) * len(labels)
