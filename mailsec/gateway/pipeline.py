"""The pipeline: admission, processing, one commit, the reply. What every listener, the resume loop and `mailsec explain` call.

The one invariant (promise 1): `receive` returns a positive reply only after `Spool.commit` has returned.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace

from mailsec.errors import ConfigurationError, KeyUnavailable, MailsecError, Reply, Unavailable
from mailsec.gateway.admission import Admission
from mailsec.gateway.annotation import check_first_line
from mailsec.gateway.audit import Audit
from mailsec.gateway.client_certificates import ClientCertificates
from mailsec.gateway.correspondents import Correspondents, PartnerBook
from mailsec.gateway.directories import Directories
from mailsec.gateway.engine import Engine, SmimeEngine
from mailsec.gateway.evidence import EvidenceDesk, TrustStore
from mailsec.gateway.explanation import Explanation, Steps, note
from mailsec.gateway.identity import identity_of
from mailsec.gateway.inbound import handle_inbound
from mailsec.gateway.inquiry import EvidenceCache
from mailsec.gateway.keyring import KeyRing, need_of
from mailsec.gateway.learning import Learner, Learning
from mailsec.gateway.login_guard import LoginGuard, Recent
from mailsec.gateway.logins import Logins
from mailsec.gateway.mailbox import Copy, handle_mailbox, retrieve, retrieved
from mailsec.gateway.notices import Notices
from mailsec.gateway.outbound import handle_outbound
from mailsec.gateway.outcomes import Receipt, is_told, must_report, receipt_of, rows_of, waiting_on
from mailsec.gateway.passing import Forwarder, pass_on
from mailsec.gateway.rates import Rates
from mailsec.gateway.reprocess import Reprocessing
from mailsec.gateway.services import Services, Surroundings
from mailsec.gateway.settling import DELIVER, decision_of, plain_text
from mailsec.gateway.tenant_secret import TenantSecrets
from mailsec.gateway.tls_words import tls_fields
from mailsec.gateway.tools import Tools
from mailsec.gateway.trace import message_id
from mailsec.gateway.waiting import read_session, why_waiting
from mailsec.interfaces import (
    Authenticator,
    CertificateDirectory,
    Credentials,
    Outcome,
    ReactorService,
    Runtime,
    SealKeys,
    Spool,
    TcpService,
)
from mailsec.mime.index import index_message
from mailsec.model.address import NULL_PATH, Address
from mailsec.model.octets import Octets
from mailsec.model.queue import NewEntry, SpooledEntry
from mailsec.model.session import Envelope, Identity, Origin, Session, TlsInfo, Transaction
from mailsec.model.settings import GatewaySettings, ListenerSettings
from mailsec.model.verdict import Decision, Event
from mailsec.plugins import PluginManager

__all__ = ["Pipeline"]

_KEPT_SESSIONS = 256


class Pipeline(Services):
    """One for each worker; it is the `interfaces.Gateway` that plugins are given, too.

    `plugins` is loaded; everything but runtime, spool and trust comes from the plugins' providers. `engine` replaces S/MIME for tests;
    `evidence` keeps evidence for all workers; `partners` knows what is agreed with correspondents, and `learner` keeps what their mail
    teaches; with `seals` what is delivered is sealed, and known again in mailboxes; `surroundings` are for plugins that ask for them.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        runtime: Runtime,
        plugins: PluginManager,
        spool: Spool,
        trust: TrustStore | None,
        engine: Engine | None = None,
        evidence: EvidenceCache | None = None,
        partners: PartnerBook | None = None,
        seals: SealKeys | None = None,
        learner: Learner | None = None,
        guard: LoginGuard | None = None,
        sent: Recent | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.settings = settings
        self._surroundings = surroundings or Surroundings()
        self.runtime = runtime
        self.plugins = plugins
        self.spool = spool
        self.forwarder: Forwarder | None = None
        """Who passes mail on for listeners in proxy mode; None: all goes by the spool."""
        self._notices = Notices(settings, runtime)
        self._tenants = TenantSecrets(settings.listeners, settings.limits)
        self._reprocessing = Reprocessing(settings, runtime.scratch)
        backends = plugins.providers("register_crypto_backends", gateway=self)
        if engine is None:
            if not backends:
                raise ConfigurationError("no plugin brings a crypto backend", hint="the built-in one is mailsec.builtin.software")
            engine = SmimeEngine(backends[0], runtime, settings.limits, settings.revocation)
        lent = {"settings": settings, "runtime": runtime}
        self.admission = Admission(settings, plugins.providers("register_recipient_directories", **lent), runtime.now)
        self.authenticators: tuple[Authenticator, ...] = tuple(plugins.providers("register_authenticators", **lent))
        self.logins = Logins(self.authenticators, self.admission, runtime, plugins, guard)
        self._rates = Rates(settings, sent, runtime.now)
        self.directories: tuple[CertificateDirectory, ...] = tuple(plugins.providers("register_certificate_directories", **lent))
        desk = EvidenceDesk(
            engine,
            runtime,
            trust,
            plugins.providers("register_revocation_sources", **lent),
            revocation=settings.revocation,
            limits=settings.limits,
            cache=evidence,
            alarm=plugins.record,
        )
        self._clients: ClientCertificates | None = None
        if trust is not None and backends:
            self._clients = ClientCertificates(runtime, trust, desk.inquiries, backends[0], settings.revocation, settings.limits)
        self._listeners = {listener.name: listener for listener in settings.listeners}
        self._tools = Tools(
            settings,
            settings.limits,
            runtime,
            plugins,
            engine,
            KeyRing(plugins.providers("register_key_stores", **lent), Audit(plugins.record, runtime.now, runtime.monotonic)),
            desk,
            Correspondents(Directories(self.directories, runtime, settings.limits), desk, runtime),
            partners,
            seals,
        )
        self._learning = Learning(learner, desk, runtime, plugins, settings.domains)
        self._sessions: dict[str, tuple[Session, Identity | None, Session]] = {}
        self._records = bool(plugins.implementations("record_event"))
        self._services: list[TcpService | ReactorService] = plugins.providers("register_tcp_services", gateway=self)

    async def startup(self) -> None:
        """Tell every plugin that all providers are registered and no port is open yet. Raise ConfigurationError where one fails."""
        for answer in await self.plugins.call_each("startup", self.runtime, self.settings.limits, gateway=self):
            if answer.failure is not None:
                raise ConfigurationError(answer.failure.message, hint=answer.failure.hint) from answer.failure

    async def shutdown(self) -> None:
        """Tell every plugin that the last connection has closed. A failure is theirs: the others are still told."""
        await self.plugins.call_each("shutdown", self.runtime, self.settings.limits, gateway=self)

    def services(self) -> list[TcpService | ReactorService]:
        """The protocols that a listener may name in `service`."""
        return self._services

    # -- before the octets ----------------------------------------------------------------------------------------------------

    def admit_connection(self, session: Session) -> Reply | None:
        """None: welcome."""
        return self.admission.admit_connection(session)

    def admit_tls(self, session: Session, info: TlsInfo) -> TlsInfo | Awaitable[TlsInfo]:
        """What may be believed of a handshake on the listener of `session`. It, or awaiting it, raises Refused where the client is not welcome."""
        listener = self._listeners.get(session.listener)
        if listener is None or listener.client_certificates == "none":
            self._record_tls(session, info)
            return info
        return self._judge_client(listener, session, info)

    async def _judge_client(self, listener: ListenerSettings, session: Session, info: TlsInfo) -> TlsInfo:
        try:
            if self._clients is None:
                raise Unavailable("there is nobody to judge client certificates", stage="tls")
            judged = await self._clients.judge(listener, info)
        except MailsecError as error:
            self._record_tls(session, info, error)
            raise
        self._record_tls(session, judged)
        return judged

    def _record_tls(self, session: Session, info: TlsInfo, error: MailsecError | None = None) -> None:
        if not self._records:
            return
        fields = {"listener": session.listener, "peer": session.peer, **tls_fields(info, self.runtime.now())}
        if error is not None:
            fields |= {"reason": error.message, "hint": error.hint, "reply": error.reply.code}
        self.plugins.record(Event("tls session" if error is None else "tls refused", self.runtime.now(), fields))

    def tls_failed(self, session: Session, why: str) -> None:
        """A handshake that came to nothing: told to who records events."""
        if self._records:
            self.plugins.record(
                Event("tls failed", self.runtime.now(), {"listener": session.listener, "peer": session.peer, "reason": why})
            )

    def admit_sender(self, session: Session, reverse_path: Address | None, size: int = 0) -> Reply | None:
        """None: welcome; a reply: refused with it. Raise StorageFull where there is no room for a message of `size` octets."""
        refused = self.admission.admit_sender(session, reverse_path)
        if refused is None:
            # RFC 1870 §6.1: 452 before the octets are sent, where there is no room for them now
            self.spool.check_room(size)
            refused = self._rates.admit(session, reverse_path)
        return refused

    def admit_recipient(self, session: Session, reverse_path: Address | None, recipient: Address) -> Reply | Awaitable[Reply | None] | None:
        """None: welcome; a reply: refused with it; an awaitable where a recipient directory must be asked."""
        refused = self._reprocessing.refuses(session.origin, recipient) or self.admission.admit_recipient(session, recipient)
        if refused is not None or session.origin.outbound or not self.admission.directories:
            return refused
        return self.admission.admit_known_recipient(recipient)

    async def authenticate(self, credentials: Credentials, session: Session) -> Identity | None:
        """As `logins.authenticate`."""
        return await self.logins.authenticate(credentials, session)

    @property
    def mechanisms(self) -> frozenset[str]:
        """The SASL mechanisms that an authenticator can verify."""
        return frozenset().union(*(one.mechanisms for one in self.authenticators))

    # -- a message ------------------------------------------------------------------------------------------------------------

    async def receive(self, session: Session, envelope: Envelope, octets: Octets) -> Reply:
        """Process, commit once, reply. Errors that mailsec understands become replies; nothing is kept then."""
        return (await self._receive(session, envelope, octets, each=False)).reply

    async def receive_each(self, session: Session, envelope: Envelope, octets: Octets) -> tuple[Reply, ...]:
        """The same with a reply for each recipient (LMTP, RFC 2033 §4.2)."""
        return (await self._receive(session, envelope, octets, each=True)).replies

    async def _receive(self, session: Session, envelope: Envelope, octets: Octets, *, each: bool) -> Receipt:
        try:
            transaction = self._tenants.admit(self.begin(session, envelope, octets))
            if self._reprocessing.concerns(transaction):
                outcomes, receipt = await self._again(transaction)
            else:
                outcomes = await self._outcomes(transaction)
                self._demand_room(outcomes)
                receipt = receipt_of(transaction, outcomes, self._notices, each=each)
            if receipt.rows and self.forwarder is not None and self._proxies(session):
                receipt = await pass_on(self.forwarder, receipt, each=each)
            if receipt.rows:
                await self.spool.commit(receipt.rows)
        except MailsecError as error:
            decision = decision_of(error)
            assert decision.reply is not None
            if self._records:
                self._record_failure(session, envelope, len(octets), error, decision.reply)
            return Receipt((), decision.reply, (decision.reply,) * len(envelope.recipients))
        self._learning.take(outcomes)
        if receipt.reply.positive:
            self._rates.count(session, envelope.reverse_path, len(envelope.recipients))
        if self._records:
            self._record(transaction, outcomes, receipt.reply)
        return receipt

    async def _again(self, transaction: Transaction) -> tuple[list[Outcome], Receipt]:
        """What becomes of messages that are to be processed again: all are taken, or none is. Raise Refused."""
        outcomes: list[Outcome] = []
        rows: list[NewEntry] = []
        for attached in self._reprocessing.transactions(transaction):
            found = await self._outcomes(attached)
            receipt = receipt_of(attached, found, self._notices)
            if not receipt.rows:
                return found, receipt
            outcomes += found
            rows += receipt.rows
        reply = Reply(250, "2.0.0", f"accepted as {transaction.id}")
        return outcomes, Receipt(tuple(rows), reply, (reply,) * len(transaction.envelope.recipients))

    def _proxies(self, session: Session) -> bool:
        listener = self._listeners.get(session.listener)
        return listener is not None and listener.proxy

    def _demand_room(self, outcomes: Sequence[Outcome]) -> None:
        """Raise KeyUnavailable (451 4.3.2) where too much waits for a token already."""
        for need in {outcome.need for outcome in outcomes if outcome.need.startswith("token:")}:
            if self.spool.many_wait(need, self.settings.limits.waiting_for_token):
                raise KeyUnavailable(f"{need} is out, and too much mail waits for it", hint="`mailsec queue list` shows it", stage=need)

    def begin(self, session: Session, envelope: Envelope, octets: Octets, transaction_id: str = "", attempt: int = 0) -> Transaction:
        """The transaction of one message. Raise LimitExceeded for a header over the limits."""
        now = self.runtime.now()
        if not transaction_id:
            # the instant in microseconds and 40 random bits: unique over workers and restarts, and ids sort by time
            transaction_id = f"{int(now.timestamp() * 1_000_000):x}{self.runtime.random(5).hex()}"
        identity = identity_of(session, envelope.reverse_path)
        if identity is not session.identity:
            session = self._identified(session, identity)
        envelope = self.admission.with_postmaster(envelope)
        return Transaction(transaction_id, session, envelope, index_message(octets, self.settings.limits), now, attempt)

    def _identified(self, session: Session, identity: Identity | None) -> Session:
        """`session` with `identity`. A client on `trusted` sends many messages for one address over one connection: one new value serves all."""
        kept = self._sessions.get(session.id)
        if kept is None or kept[0] is not session or kept[1] is not identity:
            if len(self._sessions) >= _KEPT_SESSIONS:
                self._sessions.clear()
            kept = self._sessions[session.id] = (session, identity, replace(session, identity=identity))
        return kept[2]

    async def process(self, transaction: Transaction) -> AsyncIterator[Outcome]:
        """Everything up to the spool: an outcome for each group of recipients. Errors that mailsec understands are outcomes too."""
        for outcome in await self._outcomes(transaction):
            yield outcome

    async def retrieve(self, session: Session, octets: Octets, *, loose: bool = False) -> Copy:
        """The reader's copy of a message of a mailbox. Raise MailsecError where there can be none now."""
        copy, transaction = await retrieve(self._tools, session, octets, loose=loose, begin=self.begin, process=self.process)
        if self._records:
            self.plugins.record(retrieved(session, len(octets), copy, transaction, self.runtime.now()))
        return copy

    async def owner(self, session: Session, login: str) -> Identity | None:
        """Whose mailbox it is that `login` reads at `session.upstream`, as the first authenticator says who knows; None: nobody's."""
        for authenticator in self.authenticators:
            if "UPSTREAM" in authenticator.mechanisms:
                identity = await authenticator.authenticate(Credentials("UPSTREAM", login, b""), session)
                if identity is not None:
                    return identity
        return None

    async def explain(self, transaction: Transaction) -> Explanation:
        """What would happen, step by step; nothing is signed, stored, sent or recorded."""
        steps: Steps = []
        outcomes = await self._outcomes(transaction, steps)
        return Explanation(tuple(steps), tuple(outcomes))

    async def _outcomes(self, transaction: Transaction, steps: Steps | None = None, *, resumed: bool = False) -> list[Outcome]:
        everybody = tuple(recipient.address for recipient in transaction.envelope.recipients)
        try:
            if transaction.session.origin is not Origin.MAILBOX:  # what lies in a mailbox has been accepted
                self.admission.check_message(transaction.message)
                check_first_line(transaction.message)
            if transaction.session.origin.outbound:
                return await handle_outbound(self._tools, transaction, steps)
            if transaction.session.origin is Origin.MAILBOX:
                return await handle_mailbox(self._tools, transaction, steps)
            return await handle_inbound(self._tools, transaction, steps, resumed=resumed)
        except KeyUnavailable as error:
            return [Outcome(everybody, DELIVER, None, None, need=need_of(error, "keys"))]
        except MailsecError as error:
            decision = decision_of(error)
            note(steps, "decision", f"{decision.action}: {error.message}", decision.rule)
            return [Outcome(everybody, decision, None, None, rule=decision.rule)]

    # -- a row that waited ----------------------------------------------------------------------------------------------------

    async def resume(self, row: SpooledEntry) -> None:
        """Process a raw row (or a held one that was released) under the rules of this moment. Raise StoreError: the row stays.

        The spool counts attempts, durably and before this is called; it holds a row that took its worker down too often.
        """
        entry = row.entry
        try:
            transaction = self.begin(read_session(entry.session), entry.envelope, row.octets, entry.id, row.attempts + 1)
        except MailsecError as error:
            await self.spool.hold(entry.id, error.message)
            return
        transaction = replace(transaction, received_at=entry.received_at)
        outcomes = await self._outcomes(transaction, resumed=True)
        told = is_told(transaction)
        if all(outcome.decision.action == "hold" or (outcome.decision.action == "refuse" and not told) for outcome in outcomes):
            reason = outcomes[0].decision.reason
            if must_report(transaction, outcomes[0]):
                await self.spool.commit([self._notices.held(transaction, entry.id, reason, f"{entry.id}.{row.attempts + 1}.report")])
            await self.spool.hold(entry.id, reason)
        elif all(outcome.need or outcome.decision.action == "defer" for outcome in outcomes):
            if (self.runtime.now() - transaction.received_at).total_seconds() >= self.settings.relay.give_up_after:
                await self._give_up(transaction, entry.id, outcomes)
            else:
                need, reason = outcomes[0].need, outcomes[0].decision.reason or why_waiting(outcomes[0].need)
                report = self._delayed(transaction, reason) if told and not row.delayed else None
                await self.spool.postpone(entry.id, need=need, reason=reason, report=report)
        else:
            rows = rows_of(transaction, [waiting_on(outcome) for outcome in outcomes], self._notices, resumed=True)
            await self.spool.commit(rows, replaces=entry.id)
            self._learning.take(outcomes)
        if self._records:
            self._record(transaction, outcomes, None)

    def _delayed(self, transaction: Transaction, reason: str) -> NewEntry | None:
        """The report to a sender whose mail waits longer than they expect."""
        age = (self.runtime.now() - transaction.received_at).total_seconds()
        if not 0 < self.settings.relay.warn_after <= age:
            return None
        return self._notices.delayed(transaction, plain_text(reason), f"{transaction.id}.{transaction.attempt}.delay")

    async def _give_up(self, transaction: Transaction, row_id: str, outcomes: Sequence[Outcome]) -> None:
        """What has waited too long ends in a report to its sender, or on hold with one to the postmaster (promises 1 and 6)."""
        reasons = [outcome.decision.reason or why_waiting(outcome.need) for outcome in outcomes]
        if not is_told(transaction):
            reason = f"it has waited too long: {reasons[0]}"
            await self.spool.commit([self._notices.held(transaction, row_id, reason, f"{row_id}.{transaction.attempt}.report")])
            await self.spool.hold(row_id, reason)
            return
        refused = []
        for outcome, reason in zip(outcomes, reasons, strict=True):
            # RFC 3463 §3.5: X.4.7, it was not delivered in time.
            reply = Reply(550, "4.4.7", plain_text(f"it has waited too long: {reason}"))
            refused.append(replace(outcome, need="", decision=Decision("refuse", reply, reply.text, outcome.rule)))
        await self.spool.commit(rows_of(transaction, refused, self._notices, resumed=True), replaces=row_id)

    def _record(self, transaction: Transaction, outcomes: Sequence[Outcome], reply: Reply | None) -> None:
        """One event for each message that was answered. No subject, nothing from inside encryption."""
        session, envelope, message = transaction.session, transaction.envelope, transaction.message
        first = outcomes[0]
        self.plugins.record(
            Event(
                "received" if transaction.attempt == 0 else "resumed",
                transaction.received_at,
                {
                    "id": transaction.id,
                    "message_id": message_id(transaction),
                    "reverse_path": NULL_PATH if envelope.reverse_path is None else str(envelope.reverse_path),
                    "recipients": [str(recipient.address) for recipient in envelope.recipients],
                    "size": len(message.octets),
                    "listener": session.listener,
                    "origin": session.origin.value,
                    "peer": session.peer,
                    **({"client": session.client} if session.client else {}),
                    "user": session.identity.name if session.identity is not None else "",
                    **(tls_fields(session.tls, transaction.received_at) if session.tls is not None else {}),
                    "rule": first.rule if len(outcomes) == 1 else ", ".join(dict.fromkeys(one.rule for one in outcomes if one.rule)),
                    "verdict": first.verdict.word.value if first.verdict is not None else "",
                    "protection": ", ".join(dict.fromkeys(made for one in outcomes if (made := one.explanation.get("protection")))),
                    "action": first.need or first.decision.action
                    if len(outcomes) == 1
                    else ", ".join(dict.fromkeys(one.need or one.decision.action for one in outcomes)),
                    "reason": first.decision.reason,
                    "reply": reply.code if reply is not None else 0,
                },
            )
        )

    def _record_failure(self, session: Session, envelope: Envelope, size: int, error: MailsecError, reply: Reply) -> None:
        """A message that was not taken, before or after it was processed: unreadable, over a limit, or the spool could not take it."""
        self.plugins.record(
            Event(
                "received",
                self.runtime.now(),
                {
                    "reverse_path": NULL_PATH if envelope.reverse_path is None else str(envelope.reverse_path),
                    "recipients": [str(recipient.address) for recipient in envelope.recipients],
                    "size": size,
                    "listener": session.listener,
                    "origin": session.origin.value,
                    "peer": session.peer,
                    "action": "defer" if reply.temporary else "refuse",
                    "reason": error.message,
                    "hint": error.hint,
                    "reply": reply.code,
                },
            )
        )
