"""Asking responders and servers of lists, each behind a circuit breaker: what is down is not waited for twice.

The one invariant: while a host does not answer, at most one question a period is sent to it; whoever else asks is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from mailsec.errors import LimitExceeded, Unavailable
from mailsec.interfaces import Runtime
from mailsec.model.breaker import Breakers

__all__ = ["Asking", "over_http"]


def over_http(urls: Iterable[str]) -> Sequence[str]:
    """The URLs that can be asked here."""
    return tuple(url for url in urls if url.partition(":")[0].lower() in ("http", "https"))


class Asking:
    """`Runtime.fetch`, with a breaker for each host, and one for each URL that a living host does not serve."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._breakers = Breakers()

    async def ask(self, url: str, *, body: bytes | None = None, content_type: str = "") -> bytes:
        """What is there. Raise Unavailable, whatever the reason."""
        try:
            host = urlsplit(url).netloc.lower()
        except ValueError:
            raise Unavailable(f"not a URL: {url[:80]!r}", stage="fetch") from None
        if not self._breakers.admit(self._runtime.monotonic(), host, url):
            raise Unavailable(f"{host} did not answer a moment ago", hint="it is asked again by itself", stage="fetch")
        try:
            data = await self._runtime.fetch(url, body=body, content_type=content_type)
        except (Unavailable, LimitExceeded) as error:
            # A status other than 200, a redirect to nowhere, too much: the host is there, what was asked for is not. Attack: an address on a
            # host that others need, at which there is something large.
            self._failed(url if error.stage == "http" or isinstance(error, LimitExceeded) else host)
            raise Unavailable(error.message, hint=error.hint, stage=error.stage) from None
        except TimeoutError:
            self._failed(host)
            raise Unavailable(f"{host} does not answer in time", stage="fetch") from None
        self._breakers.succeeded(host, url)
        return data

    def _failed(self, name: str) -> None:
        self._breakers.failed(name, self._runtime.monotonic())
