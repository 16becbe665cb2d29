"""Who answers the core's questions: keeps the octets, has them processed, and says what comes of it, or that it takes longer.

The one invariant (promise 1): a message is accepted only with an answer of the pipeline about exactly its octets; whatever fails here, the
client comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from mailsec.errors import MailsecError, Reply
from mailsec.interfaces import Gateway, Outcome, Scratch, Signal, Task
from mailsec.model.address import NULL_PATH
from mailsec.model.octets import Octets
from mailsec.model.session import Session, Transaction
from mailsec.model.verdict import Event
from mailsec_milter.deciding import answer_to
from mailsec_milter.questions import Abandoned, Answer, Broken, GoOn, Received, Working
from mailsec_milter.senders import session_of
from mailsec_milter.settings import MilterSettings

__all__ = ["MilterConversation"]

_INTERNAL = Reply(451, "4.3.0", "internal error, try again later")
_TOO_LONG = Reply(451, "4.3.0", "it took too long, try again later")


class MilterConversation:
    """The layer above one connection of an MTA (`interfaces.Conversation`)."""

    def __init__(self, gateway: Gateway, settings: MilterSettings, session: Session) -> None:
        self._gateway = gateway
        self._settings = settings
        self._session = session
        self._scratch: Scratch | None = None
        self._task: Task[Any] | None = None
        self._done: Signal | None = None
        self._began = 0.0

    def ask(self, question: object) -> object | Awaitable[object]:
        """Answer; raise nothing."""
        if isinstance(question, Received):
            return self._begin(question)
        if isinstance(question, GoOn):
            return self._wait()
        if isinstance(question, Abandoned):
            self._discard()
        elif isinstance(question, Broken):
            fields = {"listener": self._session.listener, "peer": self._session.peer, "reason": question.reason, "hint": question.hint}
            self._gateway.record(Event("milter refused", self._gateway.runtime.now(), fields))
        return None

    def body(self, chunk: bytes | memoryview) -> None:
        """A piece of the message; raise StoreError or StorageFull, with which the MTA is answered at its end."""
        if self._scratch is None:
            self._scratch = self._gateway.runtime.scratch()
        try:
            self._scratch.append(chunk)
        except MailsecError:
            self._discard()
            raise

    def end_of_body(self) -> None:
        """`Received` follows."""

    def closed(self) -> None:
        """The MTA is gone, and with it whoever waits for an answer: nothing was accepted, and nothing is kept."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._discard()

    # -- a message --------------------------------------------------------------------------------------------------------------

    def _begin(self, received: Received) -> Awaitable[Answer | Reply | Working]:
        # taken out of self first: an MTA that goes meanwhile must not pull the octets from under a thread that reads them
        scratch, self._scratch = self._scratch or self._gateway.runtime.scratch(), None
        runtime = self._gateway.runtime
        self._began = runtime.monotonic()
        self._done = runtime.signal()
        self._task = runtime.start(self._process(received, scratch, self._done), "milter message")
        return self._wait()

    async def _wait(self) -> Answer | Reply | Working:
        assert self._done is not None
        try:
            answer: Answer | Reply = await self._gateway.runtime.within(self._settings.progress_seconds, self._done.wait())
        except TimeoutError:
            if self._gateway.runtime.monotonic() - self._began < self._settings.give_up_seconds:
                return Working()
            answer = _TOO_LONG
            if self._task is not None:
                self._task.cancel()
        self._task = None
        return answer

    async def _process(self, received: Received, scratch: Scratch, done: Signal) -> None:
        answer: Answer | Reply = _INTERNAL
        try:
            answer = await self._answer(received, scratch.seal())
        except MailsecError as error:
            answer = error.reply
            self._tell(received, None, (), answer, error)
        finally:
            # The octets are not discarded here: an answer with a body reads them while it is sent. Whoever holds them last closes them.
            done.fire(answer)

    async def _answer(self, received: Received, octets: Octets) -> Answer | Reply:
        gateway = self._gateway
        session = await session_of(self._settings, gateway, self._session, received)
        transaction = gateway.begin(session, received.envelope, octets)
        outcomes = [outcome async for outcome in gateway.process(transaction)]
        answer = answer_to(transaction, outcomes, gateway.settings.authserv_id, gateway.settings.limits, quarantines=received.quarantines)
        self._tell(received, transaction, outcomes, answer)
        return answer

    def _tell(
        self,
        received: Received,
        transaction: Transaction | None,
        outcomes: list[Outcome] | tuple[()],
        answer: Answer | Reply,
        error: MailsecError | None = None,
    ) -> None:
        """One event, with the names that the gateway's own have."""
        reverse_path = received.envelope.reverse_path
        fields: dict[str, object] = {
            "id": transaction.id if transaction is not None else "",
            "queue_id": received.queue_id,
            "message_id": (transaction.message.first("message-id") or "")[:250] if transaction is not None else "",
            "reverse_path": NULL_PATH if reverse_path is None else str(reverse_path),
            "recipients": [str(recipient.address) for recipient in received.envelope.recipients],
            "size": len(transaction.message.octets) if transaction is not None else 0,
            "listener": self._session.listener,
            "origin": transaction.session.origin.value if transaction is not None else "",
            "peer": received.peer,
            "user": received.login,
            "rule": ", ".join(dict.fromkeys(one.rule for one in outcomes if one.rule)),
            "verdict": next((one.verdict.word.value for one in outcomes if one.verdict is not None), ""),
            "protection": ", ".join(dict.fromkeys(made for one in outcomes if (made := one.explanation.get("protection")))),
            "action": _action(answer),
            "reason": error.message if error is not None else _reason(outcomes, answer),
            "hint": error.hint if error is not None else "",
            "reply": answer.code if isinstance(answer, Reply) else 0,
        }
        self._gateway.record(Event("received", self._gateway.runtime.now(), fields))

    def _discard(self) -> None:
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.discard()


def _action(answer: Answer | Reply) -> str:
    if isinstance(answer, Reply):
        return "defer" if answer.temporary else "refuse"
    return "hold" if answer.quarantine else "deliver"


def _reason(outcomes: list[Outcome] | tuple[()], answer: Answer | Reply) -> str:
    told = next((one.decision.reason for one in outcomes if one.decision.reason), "")
    return told or (answer.text if isinstance(answer, Reply) else "")
