"""The certificate database as a plugin: keys, users, certificates and anchors for the gateway.

All database work goes to the lane "database"; what was asked before is answered from memory without suspending. The database is
asked at most once a second whether somebody changed it, and then everything kept is forgotten; nothing is kept longer than
`LONGEST` seconds, because what is valid depends on the time. The one invariant: where the database cannot be asked, the question
fails (a temporary error); an old answer is never given for longer than `GRACE` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from mailsec.algorithms.profiles import PROFILES
from mailsec.app.key_usage import fits
from mailsec.app.own_authorities import OwnAuthorities
from mailsec.asn1 import writer
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import PEER, Credentials, FoundCertificate, KeyHandle, Runtime, ScramVerifier
from mailsec.keys.software import SoftwareKey
from mailsec.model.address import Address
from mailsec.model.correspondents import KnownCertificate, Lesson, Sighting
from mailsec.model.partner import PartnerSettings
from mailsec.model.session import Identity, Session
from mailsec.model.trust import Anchor, CertificateEntry, UserEntry
from mailsec.model.verdict import Reason
from mailsec.store.certdb import CertDb
from mailsec.store.learnt import Learnt
from mailsec.store.logins import Logins
from mailsec.store.partners import Partners, agreed_with
from mailsec.x509.certificate import load_certificate

__all__ = ["Answers", "DatabaseAuthenticator", "DatabaseDirectory", "DatabaseKeys", "DatabasePlugin"]

T = TypeVar("T")

CHECKED_EVERY: Final = 1.0
GRACE: Final = 5.0
LONGEST: Final = 60.0
_MOST_ANSWERS: Final = 10_000


class Answers:
    """Answers of the database, kept until it changes."""

    def __init__(self, database: CertDb, runtime: Runtime) -> None:
        self.database = database
        self.runtime = runtime
        self.logins = Logins(runtime.random(32))
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._handles: dict[tuple[Any, ...], SoftwareKey] = {}
        self._changes = -1
        self._checked = float("-inf")
        self._since = float("-inf")
        self._checking = False

    async def fresh(self) -> None:
        """Forget what is out of date."""
        now = self.runtime.monotonic()
        # While one message asks, the others go on with what is known, but not for long.
        if now < self._checked + (GRACE if self._checking else CHECKED_EVERY):
            return
        self._checking = True
        try:
            changes = await self.runtime.in_thread(self.database.changes, lane="database")
        finally:
            self._checking = False
        if changes != self._changes:
            # New objects, not emptied ones: an answer that is still on its way goes into the old ones.
            self._changes, self._handles, self.logins = changes, {}, Logins(self.runtime.random(32))
            self._since = float("-inf")
        if now >= self._since + LONGEST or len(self._kept) > _MOST_ANSWERS:
            self._kept, self._since = {}, now
        self._checked = now

    async def ask(self, question: tuple[Any, ...], function: Callable[..., T], *args: Any) -> T:
        """The answer to `question`, from memory or by `function(*args)` in a thread."""
        await self.fresh()
        kept = self._kept
        if question in kept:
            answer: T = kept[question]
            return answer
        answer = await self.runtime.in_thread(function, *args, lane="database")
        kept[question] = answer
        return answer

    def handle(self, entry: CertificateEntry) -> SoftwareKey | None:
        """The key of an entry, loaded once. (Called in a thread.)"""
        name = (entry.der, entry.nickname, entry.assigned)
        handles = self._handles
        handle = handles.get(name)
        if handle is None:
            private_key = self.database.private_key(entry)
            if private_key is None:
                return None
            handle = SoftwareKey(
                entry.nickname,
                private_key,
                certificate=entry.der,
                chain=self.database.chain(entry),
                assigned=entry.assigned or entry.addresses,
                in_thread=self.runtime.in_thread,
            )
            handles[name] = handle
        return handle


class DatabaseKeys:
    """Private keys of the database: a `KeyStore`."""

    name = "database"

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def key(self, reference: str) -> KeyHandle | None:
        """The key called by this nickname: of several, our newest valid one. None for names of tokens, URIs and unknown ones."""
        if ":" in reference:
            return None
        at = self._answers.runtime.now()
        return await self._answers.ask(("key", reference), self._key, reference, at)

    def _key(self, reference: str, at: datetime) -> KeyHandle | None:
        for entry in self._answers.database.find(reference, at=at):
            if entry.has_key and entry.verified:
                return self._answers.handle(entry)
        return None

    async def keys_for(self, address: Address, usage: str) -> Sequence[KeyHandle]:
        """Keys assigned to `address`, newest valid first; ones that expired, or are not valid yet, only for "decrypt"."""
        at = self._answers.runtime.now()
        return await self._answers.ask(("keys", address.key, usage), self._keys_for, address, usage, at)

    def _keys_for(self, address: Address, usage: str, at: datetime) -> Sequence[KeyHandle]:
        found = []
        for entry in self._answers.database.assigned_to(address, usage, at=at):
            if fits(load_certificate(entry.der), usage, at):
                handle = self._answers.handle(entry)
                if handle is not None:
                    found.append(handle)
        if not found and self._answers.database.unlocked:
            # Mail that must be signed waits for a person to look, and is not sent back.
            self._answers.database.demand_assignments()
        return tuple(found)


class DatabaseAuthenticator:
    """Users of the database: an `Authenticator`."""

    name = "database"
    mechanisms = frozenset({"PLAIN", "SCRAM-SHA-256", PEER})

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def verifier(self, login: str, session: Session) -> ScramVerifier:
        """What a SCRAM login is checked against: one that fits nothing where there is no such user, or a disabled one."""
        user, found = await self._answers.runtime.in_thread(self._answers.database.user_and_verifier, login, lane="database")
        identity = Identity(user.login, user.addresses, "SCRAM-SHA-256") if user is not None else None
        return ScramVerifier(found.salt, found.iterations, found.stored_key, found.server_key, identity)

    async def authenticate(self, credentials: Credentials, session: Session) -> Identity | None:
        """The identity; None where login and password do not fit, the user is disabled, or wants to be somebody else."""
        if credentials.mechanism == PEER:
            known = await self._answers.ask(("user", credentials.login), self._answers.database.find_user, credentials.login)
            # Attack: who was disabled here goes on by the mail server in front, and is somebody by a rule for those whom nobody here knows.
            return None if known is None else Identity(known.login, () if known.disabled else known.addresses, PEER)
        # RFC 4616 §2: the authorisation identity says as whom to act; nobody acts as somebody else here.
        if credentials.mechanism != "PLAIN" or credentials.authorisation not in ("", credentials.login):
            return None
        answers = self._answers
        await answers.fresh()
        now, logins = answers.runtime.monotonic(), answers.logins
        user = logins.find(credentials.login, credentials.secret, now)
        if user is None:
            user = await answers.runtime.in_thread(self._check, credentials, lane="database")
            if user is None:
                return None
            logins.keep(credentials.login, credentials.secret, user, now)
        return Identity(user.login, user.addresses, credentials.mechanism)

    def _check(self, credentials: Credentials) -> UserEntry | None:
        return self._answers.database.check_password(credentials.login, credentials.secret)


class DatabaseDirectory:
    """Correspondents' certificates in the database: a `CertificateDirectory`."""

    name = "database"
    local = True

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]:
        """Certificates for `address`, best first, also those that must not be used, with why. The trust letter P vouches for one."""
        return await self._answers.ask(("certificates", address.key), self._certificates, address, self._answers.runtime.now())

    def _certificates(self, address: Address, at: datetime) -> Sequence[FoundCertificate]:
        learnt = Learnt(self._answers.database)
        capabilities = learnt.capabilities(address)
        known = {one.entry.id: one for one in learnt.known(address, domain=True)}
        usable = [entry for entry in self._answers.database.for_address(address, at=at) if entry.id in known]
        others = [one.entry for one in known.values() if one.entry not in usable]
        return tuple(_found(known[entry.id], capabilities, address) for entry in (*usable, *others))


_SEE = "`mailsec cert list` shows it"
_AGAINST = {
    "pending": Reason("recipient-pending", "policy", "it was seen in mail and waits for somebody to accept it", _SEE),
    "rejected": Reason("recipient-rejected", "policy", "somebody decided that it is not used", _SEE),
    "blocked": Reason("recipient-blocked", "policy", "it is blocked", _SEE),
}
_DISTRUSTED = Reason("distrusted", "path", "it is marked as distrusted", "see `mailsec cert show`")


def _found(known: KnownCertificate, capabilities: bytes | None, address: Address) -> FoundCertificate:
    entry, state = known.entry, known.state
    certificate = load_certificate(entry.der)
    for_whom = entry.for_whom(address)
    if for_whom != address.key:
        # What the person's program reads says nothing of the gateway that opens this.
        capabilities = None
    if capabilities is None and entry.has_key:
        # Whose key is here reads what this gateway reads.
        capabilities = writer.sequence(PROFILES["default"].ciphers_read)
    return FoundCertificate(
        entry.der,
        "database",
        trusted_binding=entry.trust.email_peer,
        capabilities=capabilities,
        against=_AGAINST.get(state, _DISTRUSTED if entry.trust.email_distrusted else None),
        preferred=state == "pinned",
        bound=not any(one.key == address.key for one in certificate.addresses),
        domain=for_whom.removeprefix("@") if for_whom != address.key else "",
        origin=f"seen in {known.source}" if known.source else "",
    )


class DatabasePlugin:
    """What `app` registers for the database that the configuration names."""

    def __init__(self, database: CertDb, runtime: Runtime) -> None:
        self._answers = Answers(database, runtime)
        self.register = OwnAuthorities(self._answers)
        self._partners = Partners(database)

    @hookimpl
    def register_key_stores(self) -> Iterable[DatabaseKeys]:
        return [DatabaseKeys(self._answers)]

    @property
    def authenticator(self) -> DatabaseAuthenticator:
        """The users of the database; `app.authenticators` says whether they log in."""
        return DatabaseAuthenticator(self._answers)

    @hookimpl
    def register_certificate_directories(self) -> Iterable[DatabaseDirectory]:
        return [DatabaseDirectory(self._answers)]

    async def agreed(self, address: Address) -> PartnerSettings:
        """What is agreed with `address`: a `gateway.correspondents.PartnerBook`."""
        # All at once: there are few of them, and every recipient is asked after.
        return agreed_with(address, await self._answers.ask(("partners",), self._partners.all))

    async def in_use(self, address: Address) -> Sequence[bytes]:
        """Certificates in use of `address`, for whoever learns: a `gateway.learning.Learner`."""
        known = Learnt(self._answers.database).known
        return [one.entry.der for one in await self._answers.runtime.in_thread(known, address, lane="database") if one.in_use]

    async def learn(self, sightings: Sequence[Sighting], anchors: Sequence[bytes]) -> Sequence[Lesson]:
        """Keep what mail taught: a `gateway.learning.Learner`."""
        runtime = self._answers.runtime

        def learn() -> Sequence[Lesson]:
            return Learnt(self._answers.database).learn(sightings, anchors=anchors, at=runtime.now())

        return await runtime.in_thread(learn, lane="database")

    async def anchors(self, purpose: str = "email") -> Sequence[Anchor]:
        """Anchors for "email", "tls-server" or "tls-client"."""
        return await self._answers.ask(("anchors", purpose), self._answers.database.anchors, purpose)

    async def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """Certificates that no path may hold."""
        return await self._answers.ask(("distrusted", purpose), self._answers.database.distrusted, purpose)

    async def authorities(self) -> Sequence[bytes]:
        """Certificates of authorities, which help to build paths; none of them is believed for being here."""
        return await self._answers.ask(("authorities",), self._answers.database.authorities)
