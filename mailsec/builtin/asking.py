"""Asking responders and servers of lists, each behind a circuit breaker: what is down is not waited for twice.

The one invariant: while a host does not answer, at most one question a period is sent to it; whoever else asks is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from mailsec.errors import LimitExceeded, Unavailable
from mailsec.interfaces import Runtime
from mailsec.model.breaker import CLOSED, Breaker

__all__ = ["Asking", "over_http"]

_MOST = 2048
"""Hosts and URLs whose state is remembered."""


def over_http(urls: Iterable[str]) -> Sequence[str]:
    """The URLs that can be asked here."""
    return tuple(url for url in urls if url.partition(":")[0].lower() in ("http", "https"))


class Asking:
    """`Runtime.fetch`, with a breaker for each host, and one for each URL that a living host does not serve."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._breakers: dict[str, Breaker] = {}

    async def ask(self, url: str, *, body: bytes | None = None, content_type: str = "") -> bytes:
        """What is there. Raise Unavailable, whatever the reason."""
        try:
            host = urlsplit(url).netloc.lower()
        except ValueError:
            raise Unavailable(f"not a URL: {url[:80]!r}", stage="fetch") from None
        now = self._runtime.monotonic()
        for key in (host, url):
            admitted = self._breakers.get(key, CLOSED).admit(now)
            if admitted is None:
                raise Unavailable(f"{host} did not answer a moment ago", hint="it is asked again by itself", stage="fetch")
            if admitted is not CLOSED:
                self._breakers[key] = admitted
        try:
            data = await self._runtime.fetch(url, body=body, content_type=content_type)
        except (Unavailable, LimitExceeded) as error:
            # A status other than 200 is an answer: the host is there, what was asked for is not.
            self._failed(url if error.stage == "http" else host)
            raise Unavailable(error.message, hint=error.hint, stage=error.stage) from None
        except TimeoutError:
            self._failed(host)
            raise Unavailable(f"{host} does not answer in time", stage="fetch") from None
        self._breakers.pop(host, None)
        self._breakers.pop(url, None)
        return data

    def _failed(self, key: str) -> None:
        if len(self._breakers) >= _MOST and key not in self._breakers:
            del self._breakers[next(iter(self._breakers))]
        self._breakers[key] = self._breakers.get(key, CLOSED).failed(self._runtime.monotonic())
