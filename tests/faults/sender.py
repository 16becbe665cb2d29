"""Clients that send and remember what was promised: where a message was answered 250 it must arrive, be reported, or be in the queue."""

from __future__ import annotations

import itertools
import smtplib
import threading

from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox

__all__ = ["Senders", "check_promise", "letter"]

_numbers = itertools.count(1)
_LARGE = b"".join(b"%06d " % number + b"x" * 70 + b"\r\n" for number in range(4000))


def letter(sender: str, recipient: str, subject: str = "kept", body: bytes = b"body\r\n.dot\r\n") -> bytes:
    """A message with CRLF."""
    number = next(_numbers)
    date = "Sun, 22 Nov 2026 06:00:00 +0000"
    header = f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nMessage-ID: <{number}@faults.example>\r\nDate: {date}\r\n\r\n"
    return header.encode() + body


class Senders:
    """Threads that send without pause until `stop`: on `trusted` (signed) and `internet`, small and large, to one recipient and to three."""

    def __init__(self, gateway: Gateway, name: str, threads: int = 2) -> None:
        self.gateway = gateway
        self.acknowledged: set[str] = set()
        self.sent = 0
        self._name = name
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> set[str]:
        """End, and return every recipient that was promised."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.acknowledged

    def _run(self, thread: int) -> None:
        listener, sender = (("internet", "carol@partner.example"), ("trusted", "alice@example.org"))[thread % 2]
        client: smtplib.SMTP | None = None
        for number in itertools.count():
            if self._stop.is_set():
                break
            recipients = [f"{self._name}-{thread}-{number}-{one}@example.org" for one in range(3 if number % 3 == 2 else 1)]
            try:
                if client is None:
                    client = self.gateway.client(listener, timeout=20)
                refused = client.sendmail(
                    sender, recipients, letter(sender, recipients[0], body=_LARGE if number % 4 == 3 else b"body\r\n")
                )
                with self._lock:
                    self.acknowledged |= set(recipients) - set(refused)
            except (OSError, smtplib.SMTPException):
                # It was killed; whether this message is there is not promised.
                if client is not None:
                    client.close()
                client = None
                self._stop.wait(0.02)
            self.sent += 1
        if client is not None:
            client.close()


def check_promise(gateway: Gateway, inbox: Inbox, acknowledged: set[str], *, seconds: float = 60) -> None:
    """Every promised recipient arrives or is reported, and the queue is empty in the end; duplicates are allowed, losses never."""

    def lost() -> set[str]:
        arrived = {address for one in list(inbox.messages) for address in one.recipients}
        return acknowledged - arrived - inbox.reported()

    def told() -> set[str]:
        return {one["address"] for entry in gateway.queue() for one in entry["recipients"]}

    # At this instant already nothing is nowhere. The queue is read first: what leaves it meanwhile arrives. A report that waits does not
    # show whom it is about, so those that the next hop refuses for ever are looked for later.
    waiting = told() | {address for address, reply in inbox.refuse.items() if reply.startswith("5")}
    missing = lost() - waiting
    assert not missing, f"lost: {sorted(missing)[:5]}"
    try:
        until(lambda: not lost(), seconds, "what was promised")
    except AssertionError:
        raise AssertionError(
            f"{len(lost())} of {len(acknowledged)} did not arrive: {sorted(lost())[:5]}; queue: {gateway.queue()[:3]}"
        ) from None
    until(lambda: not gateway.waiting(), seconds, "an empty queue")
