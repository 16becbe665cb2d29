"""What HTTP carries (RFC 6960 Appendix A, RFC 9919 §6): requests in POST or in the path of GET, answers with what caches need to know.

The one invariant: only answers that hold for everybody may be kept by caches, and no longer than until the next one is made.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256
from typing import Final
from urllib.parse import unquote_to_bytes

from mailsec.interfaces import Runtime
from mailsec_ocsp.http import HttpRequest, HttpResponse
from mailsec_ocsp.kept import Answer
from mailsec_ocsp.responder import Responder

__all__ = ["Answers"]

_REQUEST: Final = "application/ocsp-request"
_RESPONSE: Final = ("Content-Type", "application/ocsp-response")
_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_NO_STORE: Final = ("Cache-Control", "no-store")


class Answers:
    """A `Conversation`; one for all connections."""

    def __init__(self, responder: Responder, runtime: Runtime, path: str) -> None:
        self._responder = responder
        self._runtime = runtime
        self._path = path.rstrip("/").encode("ascii")

    async def ask(self, question: object) -> HttpResponse:
        """The response to one request of HTTP."""
        assert isinstance(question, HttpRequest)
        rest = self._below(question.target)
        if rest is None:
            return _told(404, "there is nothing here")
        if question.method == "POST":
            if rest:
                return _told(404, "there is nothing here")
            if question.content_type != _REQUEST:
                return _told(415, f"this is an OCSP responder: send {_REQUEST}")
            answer = await self._responder.answer(question.body)
            # Caches keep answers to GET only; a POST may hold more than its address says.
            return HttpResponse(200, (_RESPONSE, _NO_STORE), answer.octets)
        if question.method not in ("GET", "HEAD"):
            return _told(405, "GET and POST only", ("Allow", "GET, HEAD, POST"))
        octets = _decoded(rest)
        if octets is None:
            return _told(400, "this is an OCSP responder (RFC 6960): the path of a GET is a request in base64")
        return self._cached(await self._responder.answer(octets), question)

    def _below(self, target: bytes) -> bytes | None:
        """What stands below our path; None where it is another."""
        if target[:7].lower() == b"http://":
            # RFC 9112 §3.2.2: proxies send the whole address.
            target = b"/" + target[7:].partition(b"/")[2]
        if not target.startswith(self._path + b"/") and target != self._path:
            return None
        # Clients that put "/" between an address that ends in one and the request.
        return target[len(self._path) :].lstrip(b"/")

    def _cached(self, answer: Answer, question: HttpRequest) -> HttpResponse:
        if not answer.for_everybody or answer.this_update is None or answer.next_update is None or answer.renewed_at is None:
            return HttpResponse(200, (_RESPONSE, _NO_STORE), answer.octets)
        # RFC 9919 §7.2: validator, dates, and how long: until the next answer is there, not until this one ends.
        tag = f'"{sha256(answer.octets).hexdigest()}"'
        seconds = max(0, int((answer.renewed_at - self._runtime.now()).total_seconds()))
        fields = (
            ("ETag", tag),
            ("Last-Modified", _date(answer.this_update)),
            ("Expires", _date(answer.next_update)),
            ("Cache-Control", f"max-age={seconds}, public, no-transform, must-revalidate"),
        )
        if tag in question.if_none_match or question.if_none_match.strip() == "*":
            return HttpResponse(304, fields)
        return HttpResponse(200, (_RESPONSE, *fields), answer.octets)

    def body(self, chunk: bytes | memoryview) -> None:
        """No messages come this way."""

    def end_of_body(self) -> None:
        """No messages come this way."""

    def closed(self) -> None:
        """Nothing is held."""


def _decoded(text: bytes) -> bytes | None:
    # RFC 6960 §A.1: base64, then percent-encoded; many clients leave "/", "+" and "=" as they are.
    try:
        return base64.b64decode(unquote_to_bytes(text), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _told(status: int, text: str, *fields: tuple[str, str]) -> HttpResponse:
    return HttpResponse(status, (_TEXT, _NO_STORE, *fields), f"{text}\n".encode())


def _date(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC), usegmt=True)
