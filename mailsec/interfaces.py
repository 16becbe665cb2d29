"""What the objects look like that rooms and plugins hand each other: `typing.Protocol` classes, nothing that runs (but `run_now`).

Rules for all of them: instants are aware `datetime`s in UTC; certificates are DER; addresses are `model.address.Address`; an
object that may touch a disk, a network or a token has async methods; "there is none" is an empty result, "cannot be said now"
is an exception with `.temporary`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from mailsec.errors import LocalProtocolError
from mailsec.model.address import Address
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism
from mailsec.model.octets import Octets, Segments
from mailsec.model.queue import NewEntry
from mailsec.model.requests import Request
from mailsec.model.session import Identity, Session, TlsInfo, Transaction
from mailsec.model.settings import GatewaySettings
from mailsec.model.trust import Anchor, CertificateEntry, TrustFlags, UserEntry
from mailsec.model.verdict import Decision, Verdict

__all__ = [
    "Authenticator",
    "CertificateDatabase",
    "CertificateDirectory",
    "Conversation",
    "Credentials",
    "CryptoBackend",
    "Evidence",
    "EvidenceRequest",
    "FoundCertificate",
    "Gateway",
    "Hash",
    "KeyHandle",
    "KeyStore",
    "Outcome",
    "ProtocolCore",
    "ReactorService",
    "RecipientDirectory",
    "RevocationSource",
    "Runtime",
    "Scratch",
    "Signal",
    "Spool",
    "Task",
    "TcpService",
    "Work",
    "run_now",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends, and return its result; raise LocalProtocolError if it does suspend.

    For commands and tests: software key handles and file-backed objects never suspend.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise LocalProtocolError("a coroutine that must not suspend did", hint="use the runtime of the command or of the test")


# -- time, tasks, threads, network --------------------------------------------------------------------------------------------


class Task(Protocol[T_co]):
    """Something that was started: await it for its result, or cancel it."""

    def __await__(self) -> Any: ...

    def cancel(self) -> None: ...


class Signal(Protocol):
    """Fired once; whoever waits gets the value, before or after."""

    @property
    def fired(self) -> bool: ...

    def fire(self, value: Any = None) -> None: ...

    def wait(self) -> Awaitable[Any]: ...


class Work(Protocol):
    """Run `function(*args)` where it does not stop others: inline where `cost` (octets) is small, in lane `bulk` above 1 MiB."""

    def __call__(self, cost: int, function: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class Scratch(Protocol):
    """Octets that are written once, and read after they are sealed. Up to `limits.scratch_memory` in memory, then in an unnamed file."""

    def append(self, chunk: bytes | memoryview) -> None: ...

    def __len__(self) -> int: ...

    def seal(self) -> Octets:
        """End writing; return what was written. Nothing can be read before."""
        ...

    def discard(self) -> None:
        """Give the memory or the file back; allowed at any time, more than once."""
        ...


class Runtime(Protocol):
    """What plugins and cores are lent instead of a clock, a reactor, threads and a network."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def random(self, octets: int) -> bytes: ...

    def sleep(self, seconds: float) -> Awaitable[None]: ...

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> Task[T]:
        """Run `coroutine` beside us. An error that nobody awaits is logged under `name`."""
        ...

    def gather(self, awaitables: Sequence[Awaitable[T]]) -> Awaitable[list[T]]:
        """Wait for all; the first error is raised when all have ended."""
        ...

    def within(self, seconds: float, awaitable: Awaitable[T]) -> Awaitable[T]:
        """Its value or its error; after `seconds` it is cancelled and `TimeoutError` is raised."""
        ...

    def signal(self) -> Signal: ...

    def in_thread(self, function: Callable[..., T], *args: Any, lane: str = "default") -> Awaitable[T]:
        """Run in a thread of `lane` ("default", "bulk", "spool", "database"): each lane has its own few threads."""
        ...

    def resolve(self, name: str, kind: str) -> Awaitable[Sequence[Any]]:
        """Ask DNS for records of `kind` ("MX": (preference, host) pairs; "A", "AAAA": addresses). No record: empty; no answer: Unavailable."""
        ...

    def fetch(
        self, url: str, *, body: bytes | None = None, content_type: str = "", limit: int = 0, timeout: float = 0.0
    ) -> Awaitable[bytes]:
        """GET or POST over HTTP within the limits; the address that was checked is the one connected to."""
        ...

    def connect(
        self, address: str, core: ProtocolCore, ask: Callable[[object], object], *, timeout: float, verify: str = "none"
    ) -> Awaitable[Any]:
        """Connect to "HOST:PORT" or "unix:PATH" and drive `core` there; questions go to `ask`."""
        ...

    def scratch(self) -> Scratch: ...


# -- protocols ----------------------------------------------------------------------------------------------------------------


class ProtocolCore(Protocol):
    """A sans-IO protocol: octets and answers in, requests out (`model.requests`). It never raises for what a peer sends."""

    def connection_made(self) -> Iterable[Request]: ...

    def receive_data(self, data: bytes) -> Iterable[Request]: ...

    def answer(self, value: Any) -> Iterable[Request]:
        """The answer to the open `Ask`."""
        ...

    def streamed(self) -> Iterable[Request]:
        """The last piece of the open `Stream` was taken by the transport."""
        ...

    def tls_started(self, info: TlsInfo) -> Iterable[Request]: ...

    def deadline_passed(self) -> Iterable[Request]: ...

    def connection_lost(self, reason: str) -> Iterable[Request]:
        """The peer is gone; only `Ask` may be returned."""
        ...


class Conversation(Protocol):
    """The other half of a connection: who answers the core's questions and takes what it receives."""

    def ask(self, question: object) -> object | Awaitable[object]:
        """Answer at once, or later."""
        ...

    def body(self, chunk: bytes | memoryview) -> None:
        """A piece of a message. Raise a MailsecError to have its reply sent when the message ends."""
        ...

    def end_of_body(self) -> None: ...

    def closed(self) -> None:
        """The connection is gone; release what is held. No question is asked after this."""
        ...


class TcpService(Protocol):
    """A custom TCP protocol, as a plugin brings it: a `[[listener]]` names it in `service`."""

    name: str

    def open(self, session: Session) -> tuple[ProtocolCore, Conversation]:
        """A new connection: its core, and who answers."""
        ...


class ReactorService(Protocol):
    """A custom protocol that brings a ready Twisted factory."""

    name: str

    def factory(self) -> Any: ...


# -- keys and algorithms ------------------------------------------------------------------------------------------------------


class Hash(Protocol):
    """A running digest."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class KeyHandle(Protocol):
    """A private key that can be used and not seen: software, token host, or another backend.

    `sign` takes the octets to be signed, not a digest, unless `mechanism.prehashed` (EdDSA and ML-DSA hash inside). A handle
    whose operations take less than about 1 ms returns without suspending. Errors: KeyUnavailable (come back), CryptoError.
    """

    @property
    def name(self) -> str:
        """How logs and plans call it: "mail-2026", "HSM 1:mail-2026"."""
        ...

    @property
    def key_type(self) -> str:
        """ "rsa", "ec:secp256r1", "ed25519", "x25519", "ml-dsa-65", "ml-kem-768" …"""
        ...

    @property
    def bits(self) -> int: ...

    @property
    def certificate(self) -> bytes | None: ...

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Certificates of its issuers, nearest first, as far as they are known; the anchor itself is left out."""
        ...

    @property
    def assigned(self) -> tuple[str, ...]:
        """Patterns of the addresses that it signs and opens for (promise 8); the certificate's own where nobody assigned any."""
        ...

    def can(self, mechanism: SignatureMechanism | TransportMechanism | AgreementMechanism) -> bool: ...

    async def sign(self, mechanism: SignatureMechanism, data: bytes) -> bytes:
        """The signature value as CMS carries it (ECDSA as DER Ecdsa-Sig-Value)."""
        ...

    async def unwrap(self, mechanism: TransportMechanism, wrapped: bytes) -> bytes: ...

    async def agree(self, mechanism: AgreementMechanism, peer_public_key: bytes) -> bytes:
        """The raw shared secret with the peer's SubjectPublicKeyInfo."""
        ...

    async def decapsulate(self, ciphertext: bytes) -> bytes: ...


class CryptoBackend(Protocol):
    """An engine for public-key and bulk operations. Verification and digests are synchronous; what may wait is async."""

    name: str

    def hash(self, digest: str) -> Hash:
        """A running digest; raise CryptoError for one it does not know."""
        ...

    def verify(self, public_key: bytes, mechanism: SignatureMechanism, signature: bytes, data: bytes) -> bool:
        """Check `signature` over `data` (a digest where `mechanism.prehashed`) with a SubjectPublicKeyInfo. Never raises for bad input."""
        ...

    async def wrap(self, public_key: bytes, mechanism: TransportMechanism, content_key: bytes) -> bytes: ...

    async def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """(ciphertext, shared secret) of a KEM (RFC 9629)."""
        ...


class KeyStore(Protocol):
    """Where private keys are: the database, a token host, a remote signer."""

    name: str

    async def key(self, reference: str) -> KeyHandle | None:
        """The key called `reference` (a nickname, "token:nickname", a PKCS#11 URI); None where it is not ours."""
        ...

    async def keys_for(self, address: Address, usage: str) -> Sequence[KeyHandle]:
        """Keys assigned to `address` for `usage` ("sign", "decrypt"), best first; expired ones only for "decrypt"."""
        ...


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """A certificate that a directory gives for an address, with where it came from."""

    der: bytes
    source: str
    trusted_binding: bool = False
    """True where the source itself vouches that it belongs to the address (DNSSEC, an administrator)."""
    capabilities: bytes | None = None


class CertificateDirectory(Protocol):
    """A place to look up correspondents' certificates."""

    name: str

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]: ...


class RecipientDirectory(Protocol):
    """Knows whether an address exists."""

    name: str

    async def exists(self, address: Address) -> bool | None:
        """True or False; None where this directory does not know the domain."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client offered. Its `repr` shows nothing."""

    mechanism: str
    login: str
    secret: bytes = field(repr=False)
    authorisation: str = ""


class Authenticator(Protocol):
    """Says who is there, and which addresses they may use."""

    name: str
    mechanisms: frozenset[str]

    async def authenticate(self, credentials: Credentials, session: Session) -> Identity | None:
        """The identity; None where login and secret do not fit; an exception with `.temporary` where it cannot say."""
        ...


# -- evidence -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvidenceRequest:
    """What `pki` misses: "issuer" (AIA), "ocsp" or "crl" for one certificate."""

    kind: str
    certificate: bytes
    issuer: bytes | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Octets that a source brought; `pki` judges them. Nothing in here is believed."""

    kind: str
    data: bytes
    source: str
    fetched_at: datetime


class RevocationSource(Protocol):
    """Brings evidence: OCSP responses, CRLs, anything. It never judges."""

    name: str

    async def evidence(self, request: EvidenceRequest) -> Sequence[Evidence]: ...


# -- databases and spool ------------------------------------------------------------------------------------------------------


class CertificateDatabase(Protocol):
    """The shared certificate database. Blocking: call it through a thread, or from a command."""

    def entries(self) -> Sequence[CertificateEntry]: ...

    def find(self, nickname: str) -> Sequence[CertificateEntry]:
        """Entries called `nickname`, our own newest valid one first."""
        ...

    def for_address(self, address: Address) -> Sequence[CertificateEntry]: ...

    def anchors(self, purpose: str) -> Sequence[Anchor]: ...

    def add(
        self,
        certificate: bytes,
        nickname: str,
        *,
        trust: TrustFlags = ...,
        domains: Sequence[str] = (),
        source: str = "imported",
        private_key: bytes | None = None,
        assigned: Sequence[str] = (),
        at: datetime,
    ) -> CertificateEntry:
        """Add a certificate, and with `private_key` (PKCS#8 DER) its key; the same certificate twice is one entry."""
        ...

    def set_trust(self, nickname: str, trust: TrustFlags, *, domains: Sequence[str] = ()) -> None: ...

    def private_key(self, entry: CertificateEntry) -> bytes | None:
        """PKCS#8 DER of the entry's key, decrypted; None where there is none here."""
        ...

    def users(self) -> Sequence[UserEntry]: ...

    def check_password(self, login: str, password: bytes) -> UserEntry | None: ...


class Spool(Protocol):
    """Durable rows. `commit` returns after they would survive a kill or a loss of power."""

    async def commit(self, entries: Sequence[NewEntry], *, replaces: str = "") -> None:
        """All of them or none; raise StorageFull (452) or StoreError (451).

        `replaces` is the id of a raw row that was processed: it goes away in the same transaction.
        """
        ...

    def check_room(self, octets: int = 0) -> None:
        """Raise StorageFull where a message of that size (0: not known) should not even begin. Cheap enough for every MAIL."""
        ...

    async def postpone(self, id: str, *, need: str, reason: str) -> None:
        """A raw row waits on: it is tried again by itself, later each time."""
        ...

    async def hold(self, id: str, reason: str) -> None:
        """A raw row waits for a person; it stays as it is."""
        ...

    def scratch(self) -> Scratch:
        """A Scratch whose file, if it grows one, lies beside the spool, so that committing names it instead of copying it."""
        ...


# -- the gateway, as services and plugins see it ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `process` made of a transaction for one group of recipients. The octets live until it is closed."""

    recipients: tuple[Address, ...]
    decision: Decision
    segments: Segments | None
    verdict: Verdict | None
    findings: tuple[Any, ...] = ()
    need: str = ""
    secret: bool = False
    """True where the segments hold what was encrypted on arrival."""
    rule: str = ""
    explanation: Mapping[str, str] = field(default_factory=dict)


class Gateway(Protocol):
    """What `register_tcp_services`, `register_crypto_backends` and `startup` are given."""

    settings: GatewaySettings
    runtime: Runtime

    def process(self, transaction: Transaction) -> AsyncIterator[Outcome]: ...

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]: ...

    def may_send(self, identity: Identity, address: Address) -> bool: ...

    async def recipient_exists(self, address: Address) -> bool | None: ...

    async def key(self, name: str) -> KeyHandle | None: ...
