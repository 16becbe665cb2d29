"""All workers' measures as one, in the supervisor. What a worker counted stays counted when it has gone: a counter never goes back.

The one invariant: what a worker sends is not believed further than its shape: a name of the catalogue, labels of the right number, finite
numbers. A worker that was taken over can write wrong numbers, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from mailsec.app.metrics.catalogue import CATALOGUE, Metric

__all__ = ["CONTENT_TYPE", "Merged"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_MOST_SERIES: Final = 500
_LABEL_CHARACTERS: Final = 200

Series = dict[tuple[str, ...], Any]


class Merged(Collector):
    """`update` with what workers send, `departed` when one has gone; `text` is what Prometheus reads."""

    def __init__(self, own: Callable[[], Mapping[str, Mapping[tuple[str, ...], float]]] = dict) -> None:
        """`own` gives the supervisor's own values."""
        self._own = own
        self._workers: dict[Hashable, dict[str, Series]] = {}
        self._past: dict[str, Series] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def update(self, worker: Hashable, snapshot: object) -> None:
        """What `worker` has measured until now."""
        if isinstance(snapshot, dict):
            self._workers[worker] = {name: _series(CATALOGUE[name], rows) for name, rows in snapshot.items() if name in CATALOGUE}

    def departed(self, worker: Hashable) -> None:
        """It has gone: what it counted remains, what it saw does not."""
        for name, series in self._workers.pop(worker, {}).items():
            if CATALOGUE[name].kind != "gauge":
                _add(CATALOGUE[name], self._past.setdefault(name, {}), series)

    def value(self, name: str) -> Mapping[tuple[str, ...], Any]:
        """What workers have measured of a metric, by its labels."""
        metric = CATALOGUE[name]
        total: Series = {labels: list(value) if isinstance(value, list) else value for labels, value in self._past.get(name, {}).items()}
        for known in self._workers.values():
            _add(metric, total, known.get(name, {}))
        return total

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return bytes(generate_latest(self._registry))

    def collect(self) -> Iterator[Any]:
        own = self._own()
        for name, metric in CATALOGUE.items():
            series: Mapping[tuple[str, ...], Any] = own[name] if name in own else self.value(name)
            if metric.kind == "histogram":
                yield _histogram(name, metric, series)
                continue
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(name, metric.help, labels=metric.labels)
            for labels, value in sorted(series.items()):
                family.add_metric(labels, value)
            if not series and not metric.labels:
                family.add_metric((), 0)
            yield family


def _histogram(name: str, metric: Metric, series: Mapping[tuple[str, ...], list[float]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, metric.help, labels=metric.labels)
    for labels, (*counts, total) in sorted(series.items()):
        running, buckets = 0.0, []
        for bound, count in zip((*map(str, metric.buckets), "+Inf"), counts, strict=True):
            running += count
            buckets.append((bound, running))
        family.add_metric(labels, buckets, total)
    return family


def _add(metric: Metric, total: Series, series: Mapping[tuple[str, ...], Any]) -> None:
    for labels, value in series.items():
        known = total.get(labels)
        if known is None:
            total[labels] = list(value) if isinstance(value, list) else value
        elif isinstance(value, list):
            total[labels] = [one + other for one, other in zip(known, value, strict=True)]
        elif metric.merge == "sum":
            total[labels] = known + value
        else:
            total[labels] = max(known, value) if metric.merge == "max" else min(known, value)


def _series(metric: Metric, rows: object) -> Series:
    found: Series = {}
    for row in rows[:_MOST_SERIES] if isinstance(rows, list) else ():
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], list):
            continue
        labels, value = row
        if len(labels) != len(metric.labels) or not all(isinstance(one, str) for one in labels):
            continue
        if metric.kind == "histogram":
            if not isinstance(value, list) or len(value) != len(metric.buckets) + 2 or not _numbers(value):
                continue
        elif not _numbers((value,)):
            continue
        found[tuple(one[:_LABEL_CHARACTERS] for one in labels)] = value
    return found


def _numbers(values: Iterable[object]) -> bool:
    return all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in values)
