"""`[metrics] listen`: for this machine only. What is measured tells strangers how much mail there is, and where trouble may be expected."""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.app.config.addresses import Endpoint, parse_endpoint
from mailsec.app.config.models import Metrics
from mailsec.app.config.problems import Problem

__all__ = ["find_metrics_problems"]


def find_metrics_problems(metrics: Metrics, taken: Sequence[Endpoint]) -> list[Problem]:
    """An address that is none, that others reach, or that a listener has."""
    place = ("metrics", "listen")
    if not metrics.listen:
        return []
    try:
        endpoint = parse_endpoint(metrics.listen)
    except ValueError as error:
        return [Problem(place, str(error), 'write "127.0.0.1:9467" or "unix:/run/mailsec/metrics"')]
    if not endpoint.local:
        return [
            Problem(
                place, f"{metrics.listen} is not on this machine only", "127.0.0.1, [::1] or a unix socket; a proxy may open it to others"
            )
        ]
    if any(endpoint.collides(other) for other in taken):
        return [Problem(place, f"a listener has {metrics.listen} already")]
    return []
