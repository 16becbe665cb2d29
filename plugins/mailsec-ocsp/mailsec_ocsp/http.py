"""HTTP/1.1 (RFC 9112) for a responder: small requests with GET, HEAD and POST, one after the other, each answered whole. h11 reads and writes it.

The one invariant: no more than `most` octets of content and `_MOST_HEADER` of header are kept of a client, and a request of which two
readers could see two different ones is refused, with the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Final

import h11

from mailsec.model.requests import Ask, Close, Deadline, Request, Send

__all__ = ["HttpRequest", "HttpResponse", "HttpServer"]

_MOST_HEADER: Final = 16_384
"""Octets of a request line with its fields. Attack: fields without end."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The question: what is the answer to this? It is an `HttpResponse`."""

    method: str
    target: bytes
    content_type: str = ""
    """In lower case, without parameters."""
    if_none_match: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What is answered. Date and Content-Length are added."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


_UNAVAILABLE = HttpResponse(503, (("Content-Type", "text/plain"), ("Cache-Control", "no-store")), b"try again later\n")


class HttpServer:
    """A `ProtocolCore`. A request that is not complete `patience` seconds after the last answer ends the connection."""

    def __init__(self, now: Callable[[], datetime], *, most: int, patience: float = 20.0) -> None:
        self._now = now
        self._most = most
        self._patience = patience
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST_HEADER)
        self._head: h11.Request | None = None
        self._body = bytearray()

    def connection_made(self) -> Iterable[Request]:
        # Attack: a client that sends an octet now and then. What arrives does not move the deadline.
        return (Deadline(self._patience),)

    def receive_data(self, data: bytes) -> Iterable[Request]:
        try:
            self._http.receive_data(data)
            return self._next()
        except h11.RemoteProtocolError as error:
            return self._refuse(error.error_status_hint or 400, "not a request of HTTP/1.1")

    def answer(self, value: object) -> Iterable[Request]:
        """What the layer above says; anything but an `HttpResponse` is an error that it made."""
        sent = Send(self._encoded(value if isinstance(value, HttpResponse) else _UNAVAILABLE))
        if self._http.our_state is h11.MUST_CLOSE:
            return (sent, Close())
        try:
            self._head = None
            self._http.start_next_cycle()
            return (sent, Deadline(self._patience), *self._next())
        except h11.RemoteProtocolError as error:
            return (sent, *self._refuse(error.error_status_hint or 400, "not a request of HTTP/1.1"))

    def _next(self) -> tuple[Request, ...]:
        """What the octets at hand come to. Raise h11.RemoteProtocolError for those that are no HTTP."""
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._head = event
                self._body.clear()
                refused = self._look_at(event)
                if refused:
                    return refused
            elif isinstance(event, h11.Data):
                self._body += event.data
                # Attack: chunks without end, for which no length was announced.
                if len(self._body) > self._most:
                    return self._refuse(413, "too much content")
            elif isinstance(event, h11.EndOfMessage):
                return (Ask(self._question()),)
            elif isinstance(event, h11.ConnectionClosed):
                return (Close(),)
            elif self._http.they_are_waiting_for_100_continue:
                return (Send(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""),)
            else:
                return ()

    def _look_at(self, head: h11.Request) -> tuple[Request, ...]:
        """Refuse by the header what need not be read."""
        fields = dict(head.headers)
        # Attack: request smuggling. With both, another reader in front of us could see another end (RFC 9112 §6.1); h11 refuses two lengths.
        if b"content-length" in fields and b"transfer-encoding" in fields:
            return self._refuse(400, "two ways to tell where the content ends")
        # Attack: a POST of ten gigabytes.
        if int(fields.get(b"content-length", b"0")) > self._most:
            return self._refuse(413, "too much content")
        return ()

    def _question(self) -> HttpRequest:
        assert self._head is not None
        fields = {name: value.decode("latin-1") for name, value in self._head.headers}
        return HttpRequest(
            self._head.method.decode("ascii"),
            self._head.target,
            fields.get(b"content-type", "").partition(";")[0].strip().lower(),
            fields.get(b"if-none-match", ""),
            bytes(self._body),
        )

    def _refuse(self, status: int, why: str) -> tuple[Request, ...]:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return (Close(),)
        body = f"{why}\n".encode()
        refusal = HttpResponse(status, (("Content-Type", "text/plain"), ("Connection", "close")), body)
        return (Send(self._encoded(refusal)), Close())

    def _encoded(self, response: HttpResponse) -> bytes:
        # RFC 9110 §6.6.1: a server that has a clock says when it answered.
        fields = [*response.fields, ("Date", format_datetime(self._now(), usegmt=True)), ("Content-Length", str(len(response.body)))]
        if response.status == 304:
            fields.pop()
        head = h11.Response(status_code=response.status, headers=fields, reason=_REASONS.get(response.status, ""))
        parts = [self._http.send(head)]
        silent = response.status == 304 or (self._head is not None and self._head.method == b"HEAD")
        if response.body and not silent:
            parts.append(self._http.send(h11.Data(data=response.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        return b"".join(part for part in parts if part)

    def streamed(self) -> Iterable[Request]:
        return ()

    def tls_started(self, info: object) -> Iterable[Request]:
        return ()

    def deadline_passed(self) -> Iterable[Request]:
        return self._refuse(408, "too slow") if self._http.their_state is h11.SEND_BODY else (Close(),)

    def connection_lost(self, reason: str) -> Iterable[Request]:
        return ()


_REASONS = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
}
