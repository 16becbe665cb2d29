"""Which recipients exist, asked of the next hop by RCPT before their mail is taken (RFC 5321 §3.3): a `RecipientDirectory`.

The one invariant: "no such recipient" comes of a next hop that said so about that very address; where it is away, or refuses us instead,
nobody can say, and the client comes back.
"""

from __future__ import annotations

from collections.abc import Callable

from mailsec.errors import MailsecError, Reply, Unavailable
from mailsec.interfaces import Runtime, Signal
from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.model.session import Recipient
from mailsec.model.settings import GatewaySettings
from mailsec.net.relay_login import client_core
from mailsec.net.relay_routes import Destination, Routes, Target, targets_of
from mailsec.wire.smtp.questions import DeliveryResult, Ended, NextMessage, OutgoingMessage, Quit

__all__ = ["NextHopRecipients"]

_AT_ONCE = 50
"""Addresses that are asked for in one transaction."""
_WAIT = 30.0
"""Seconds that a client may have to wait for the answer."""
_IDLE = 30.0
_DOWN = 5.0
"""How long nobody is asked again after a next hop was found dead."""
_MOST = 20_000
"""Addresses that are remembered: a dictionary of guessed names fills no memory."""
_NOBODY = frozenset({550, 551, 553})


class NextHopRecipients:
    """One for each worker."""

    name = "next-hop"

    def __init__(self, settings: GatewaySettings, runtime: Runtime, *, remember_known: float, remember_unknown: float) -> None:
        """Seconds for which an answer is remembered."""
        self._settings = settings
        self._runtime = runtime
        self._seconds = {True: remember_known, False: remember_unknown}
        self._routes = Routes(settings.relay)
        self._known: dict[str, tuple[float, bool]] = {}
        self._askers: dict[Destination, _Asker] = {}

    async def exists(self, address: Address) -> bool | None:
        """True or False; raise Unavailable where the next hop cannot say now."""
        # What stands before the @ is the next hop's to compare (RFC 5321 §2.4).
        key = f"{address.local_part}@{address.domain_key}"
        now = self._runtime.monotonic()
        known = self._known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        destination = self._routes.destination(address.domain)
        asker = self._askers.get(destination)
        if asker is None:
            asker = self._askers[destination] = _Asker(destination, self._settings, self._runtime)
        try:
            found = _means(await self._runtime.within(_WAIT, asker.ask(address)))
        except TimeoutError:
            raise Unavailable(f"{destination} does not say whether {address} exists", stage="recipient") from None
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known.pop(key, None)
        self._known[key] = (now + self._seconds[found], found)
        return found


def _means(reply: Reply) -> bool:
    if reply.positive:
        return True
    # RFC 3463 §3.2, §3.3: X.1.Z is about the address, X.2.Z about its mailbox; a refusal for another reason (X.7.1) says nothing of either.
    about = reply.enhanced[2:4]
    if reply.code >= 500 and (about in ("1.", "2.") if about else reply.code in _NOBODY):
        return False
    raise Unavailable(f"the next hop does not say whether somebody exists: {reply.code} {reply.enhanced} {reply.text}", stage="recipient")


class _Asker:
    """The questions for one next hop, and the one connection on which they are asked."""

    def __init__(self, destination: Destination, settings: GatewaySettings, runtime: Runtime) -> None:
        self._destination = destination
        self._settings = settings
        self._runtime = runtime
        self._waiting: dict[Address, Signal] = {}
        self._asked: dict[Address, Signal] = {}
        self._running = False
        self._wanted: Signal | None = None
        self._down_until = 0.0
        self._why = ""

    async def ask(self, address: Address) -> Reply:
        """What the next hop says about `address`. Raise Unavailable."""
        signal = self._asked.get(address) or self._waiting.get(address)
        if signal is None:
            if self._runtime.monotonic() < self._down_until:
                raise Unavailable(self._why, stage="recipient")
            signal = self._waiting[address] = self._runtime.signal()
            if self._wanted is not None:
                wanted, self._wanted = self._wanted, None
                wanted.fire(self._next())
            elif not self._running:
                self._running = True
                self._runtime.start(self._run(), f"recipients at {self._destination}")
        reply: Reply | MailsecError = await signal.wait()
        if isinstance(reply, MailsecError):
            raise Unavailable(reply.message, stage="recipient")
        return reply

    async def _run(self) -> None:
        error: MailsecError = Unavailable(f"{self._destination} cannot be asked", stage="recipient")
        try:
            while self._waiting:
                failed = await self._connect()
                if failed is not None:
                    error = failed
                    break
        except MailsecError as refused:
            error = refused
        finally:
            self._running = False
            left = {**self._asked, **self._waiting}
            if left:
                self._down_until = self._runtime.monotonic() + _DOWN
                self._why = f"{self._destination} cannot say now who exists: {error.message}"
            self._asked, self._waiting = {}, {}
            for signal in left.values():
                signal.fire(Unavailable(self._why, stage="recipient"))

    async def _connect(self) -> MailsecError | None:
        """Ask on one connection until it ends; the error where none would answer."""
        error: MailsecError | None = None
        for target in await targets_of(self._destination, self._runtime, self._settings.hostname):
            for tls in (target.hop.tls, "none"):
                try:
                    answered, ended = await self._talk(target, tls)
                except Unavailable as unreachable:
                    error = unreachable
                    break
                if answered:
                    return None
                error = ended.error or Unavailable(f"{target.address} closed the connection", stage="recipient")
                # Encryption that nobody asked for must not cost the answer: once more, in clear.
                if not (ended.tls_failed and tls == "opportunistic"):
                    break
        return error or Unavailable(f"no host of {self._destination} could be tried", stage="recipient")

    async def _talk(self, target: Target, tls: str) -> tuple[bool, Ended]:
        """(something was answered, how it ended)."""
        over = self._runtime.signal()
        answered: list[DeliveryResult] = []
        core = await client_core(target, tls, self._settings, self._runtime)
        told = self._listener(answered, over)
        await self._runtime.connect(target.address, core, told, timeout=min(_WAIT, self._settings.relay.connect_timeout))
        ended: Ended = await over.wait()
        # What was asked and not answered is asked again where the connection had served before (the next hop closes idle ones).
        if answered:
            self._waiting = {**self._asked, **self._waiting}
            self._asked = {}
        return bool(answered), ended

    def _listener(self, answered: list[DeliveryResult], over: Signal) -> Callable[[object], object]:
        def told(question: object) -> object:
            if isinstance(question, NextMessage):
                if question.result is not None:
                    answered.append(question.result)
                    self._answered(question.result)
                if self._waiting:
                    return self._next()
                self._wanted = self._runtime.signal()
                return self._until_wanted(self._wanted)
            if isinstance(question, Ended):
                self._wanted = None
                over.fire(question)
            return None

        return told

    async def _until_wanted(self, wanted: Signal) -> object:
        try:
            return await self._runtime.within(_IDLE, wanted.wait())
        except TimeoutError:
            if self._wanted is wanted:
                self._wanted = None
            return self._next() if self._waiting else Quit()

    def _next(self) -> OutgoingMessage:
        batch = dict(list(self._waiting.items())[:_AT_ONCE])
        for address in batch:
            del self._waiting[address]
        self._asked = batch
        return OutgoingMessage(None, tuple(map(Recipient, batch)), Segments.of(b""), only_asks=True)

    def _answered(self, result: DeliveryResult) -> None:
        asked, self._asked = self._asked, {}
        for recipient, reply in zip(result.message.recipients, result.replies, strict=True):
            signal = asked.get(recipient.address)
            if signal is not None:
                signal.fire(reply)
