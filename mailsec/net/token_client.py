"""Speaking with token hosts from a reactor: one connection to each, made anew when it breaks; questions with deadlines; what the tokens list.

The one invariant: every question ends: with its answer, with the host's error, or with KeyUnavailable when the connection or its time is
over. A late answer is dropped.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ClientFactory, Protocol

from mailsec.errors import KeyUnavailable, MailsecError, RemoteProtocolError
from mailsec.keys.frames import OPERATIONS, Frame, FrameReader, Verb, error_of, frame, read_json
from mailsec.model.tokens import TokenKey
from mailsec.net.runtime import as_deferred

__all__ = ["HostConnection", "ListedCertificate", "ListedToken", "TokenClient", "read_listing"]

_log = structlog.get_logger("mailsec.tokens")

_SWEEP_SECONDS: Final = 0.25
_RETRY_FIRST, _RETRY_LONGEST = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class ListedCertificate:
    """A certificate on a token, as its host lists it."""

    label: str
    id: bytes
    der: bytes


@dataclass(frozen=True, slots=True)
class ListedToken:
    """A token, as its host lists it."""

    name: str
    """What the host calls it: its label, or a PKCS#11 URI where two have one."""
    label: str
    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    usable: bool = False
    login_required: bool = True
    pin_pad: bool = False
    problem: str = ""
    settled: bool = True
    """False as long as it is not known whose keys are on it: nobody has logged in yet, or looked for their certificates in the database."""
    certificates: tuple[ListedCertificate, ...] = ()
    keys: tuple[TokenKey, ...] = ()
    assigned: Mapping[bytes, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """By CKA_ID: (pattern, usage) of those whom the key is assigned to; a key that is missing here is for whom its certificates name."""
    offered: set[str] = field(default_factory=set)
    """Names of mechanisms, without CKM_; handles add what they saw refused."""


def read_listing(value: Mapping[str, Any]) -> tuple[ListedToken, ...]:
    """The tokens of a host's list; raise RemoteProtocolError for anything that a host does not write."""
    try:
        return tuple(_token(row) for row in value["tokens"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RemoteProtocolError("a token host's list cannot be read") from error


def _token(row: Mapping[str, Any]) -> ListedToken:
    name = str(row["name"])
    return ListedToken(
        name,
        str(row["label"]),
        str(row.get("serial", "")),
        str(row.get("manufacturer", "")),
        str(row.get("model", "")),
        bool(row["usable"]),
        bool(row["login_required"]),
        bool(row.get("pin_pad", False)),
        str(row["problem"]),
        bool(row.get("settled", True)),
        tuple(ListedCertificate(one["label"], bytes.fromhex(one["id"]), base64.b64decode(one["der"])) for one in row["certificates"]),
        tuple(
            TokenKey(name, one["label"], bytes.fromhex(one["id"]), one["key_type"], int(one["bits"]), base64.b64decode(one["public_key"]))
            for one in row["keys"]
        ),
        {bytes.fromhex(one["id"]): tuple((str(p), str(u)) for p, u in one["assigned"]) for one in row["keys"] if one["assigned"]},
        set(row["mechanisms"]),
    )


class HostConnection(Protocol):
    """One connection: questions by number, and what the host says by itself."""

    transport: Any

    def __init__(self, reactor: Any, told: Callable[[Frame], object], lost: Callable[[], object]) -> None:
        self._reactor = reactor
        self._told = told
        self._lost = lost
        self._reader = FrameReader()
        self._asked: dict[int, tuple[float, Deferred[Frame]]] = {}
        self._number = 0
        self._sweeping: Any = None
        self.heard_at = 0.0

    def ask(self, seconds: float, verb: int, *fields: bytes) -> Deferred[Frame]:
        """Ask; the answer, or the error that the host gives, or KeyUnavailable."""
        self._number = number = self._number + 1 & 0xFFFFFFFF
        deferred: Deferred[Frame] = Deferred(self._cancelled)
        self._asked[number] = (self._reactor.seconds() + seconds, deferred)
        if self._sweeping is None:
            self._sweeping = self._reactor.callLater(_SWEEP_SECONDS, self._sweep)
        self.transport.write(frame(verb, number, *fields))
        return deferred

    def _cancelled(self, deferred: Deferred[Frame]) -> None:
        for number, (_, other) in self._asked.items():
            if other is deferred:
                del self._asked[number]
                break
        deferred.errback(CancelledError())

    def dataReceived(self, data: bytes) -> None:
        self.heard_at = self._reactor.seconds()
        try:
            for one in self._reader.feed(data):
                if not one.number:
                    self._told(one)
                    continue
                asked = self._asked.pop(one.number, None)
                if asked is None:  # it came too late
                    continue
                if one.verb == Verb.ERROR:
                    asked[1].errback(error_of(one))
                else:
                    asked[1].callback(one)
        except RemoteProtocolError as error:
            _log.error("a token host speaks nonsense", error=error.message)
            self.transport.abortConnection()

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._reactor.seconds()
        for number, (deadline, deferred) in list(self._asked.items()):
            if deadline <= now:
                del self._asked[number]
                deferred.errback(
                    KeyUnavailable("a token host does not answer in time", hint="its library may hang; it is started again then")
                )
        if self._asked:
            self._sweeping = self._reactor.callLater(_SWEEP_SECONDS, self._sweep)

    def connectionLost(self, reason: Any = None) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        asked, self._asked = self._asked, {}
        for _, deferred in asked.values():
            deferred.errback(KeyUnavailable("the token host has gone", hint="it is started again by itself"))
        self._lost()


class TokenClient:
    """The token host of one module, as a worker sees it."""

    def __init__(
        self, reactor: Any, module: str, path: str, *, call_seconds: float, raw_rsa: bool = False, known: Mapping[str, Any] | None = None
    ) -> None:
        """`known` is what the host listed when it last ran: for whom its keys are, while it cannot be asked."""
        self.module = module
        self.raw_rsa = raw_rsa
        self.version = 0
        """It grows with every change of `tokens`."""
        self.tokens: Sequence[ListedToken] = ()
        self.listed = False
        """False as long as nobody has said what there is."""
        self.on_back: Callable[[Sequence[str]], object] | None = None
        """Called with the needs of mail that can go on ("token:HSM 1")."""
        self._reactor = reactor
        self._path = path
        self._call_seconds = call_seconds
        self._connection: HostConnection | None = None
        self._wait = _RETRY_FIRST
        self._stopped = False
        self._connector: Any = None
        self._timer: Any = None
        if known is not None:
            try:
                self._list(read_listing(known))
            except RemoteProtocolError:
                pass

    def start(self) -> None:
        """Connect, and stay connected."""
        self._timer = None
        if not self._stopped:
            self._connector = self._reactor.connectUNIX(self._path, _Factory(self), timeout=5)

    def stop(self) -> None:
        """Hang up."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connector is not None:
            self._connector.disconnect()

    def ask(self, verb: str, key: TokenKey, operation: str, address: str, data: bytes) -> Deferred[bytes]:
        """One raw operation for `address`. Errors: KeyUnavailable (with the token as its stage), CryptoError, TokenError."""
        connection = self._connection
        if connection is None:
            raise self.unavailable(key.token)
        asked = connection.ask(self._call_seconds, OPERATIONS[verb], key.token.encode(), key.id, operation.encode(), address.encode(), data)
        return asked.addCallbacks(_first_field, self._failed, errbackArgs=(key.token,))

    def unavailable(self, token: str = "") -> KeyUnavailable:
        """What is said of a key whose host cannot be asked."""
        return KeyUnavailable(
            f"the token host of {self.module!r} is out",
            hint="the log says why; it is started again by itself",
            stage=f"token:{token or self.module}",
        )

    def _failed(self, failure: Any, token: str) -> Any:
        error = failure.value
        if isinstance(error, KeyUnavailable) and not error.stage:
            raise KeyUnavailable(error.message, hint=error.hint, stage=f"token:{token}") from error
        return failure

    # -- the connection ------------------------------------------------------------------------------------------------------------

    def connection_made(self, connection: HostConnection) -> None:
        self._connection = connection
        self._wait = _RETRY_FIRST
        as_deferred(self._ask_list(back=None)).addErrback(self._not_listed)

    def told(self, one: Frame) -> None:
        """The host says something by itself."""
        if one.verb == Verb.CHANGED:
            as_deferred(self._ask_list(back=list(map(str, read_json(one).get("back", ()))))).addErrback(self._not_listed)

    async def _ask_list(self, back: Sequence[str] | None) -> None:
        connection = self._connection
        if connection is None:
            return
        answer = await connection.ask(self._call_seconds, Verb.LIST)
        open_before = {token.name for token in self.tokens if not token.settled}
        self._list(read_listing(read_json(answer)))
        if self.on_back is not None:
            # After a new connection whatever can be used may have been waited for.
            names = [token.name for token in self.tokens if token.usable] if back is None else list(back)
            # Mail waits for them whose sender or recipient may have had a key there, and is now known to have one or none.
            names += [token.name for token in self.tokens if token.settled and token.name in open_before]
            labels = [token.label for token in self.tokens if token.name in names]
            needs = [f"token:{name}" for name in (*names, *labels, *([self.module] if back is None else ()))]
            if needs:
                self.on_back(list(dict.fromkeys(needs)))

    def _list(self, tokens: Sequence[ListedToken]) -> None:
        self.tokens, self.listed = tokens, True
        self.version += 1

    def _not_listed(self, failure: Any) -> None:
        if isinstance(failure.value, MailsecError):
            _log.warning("a token host lists nothing", module=self.module, error=failure.value.message)
            return
        if not isinstance(failure.value, CancelledError):
            _log.error("a token host's list cannot be used: unexpected error", exc_info=failure.value)

    def connection_lost(self) -> None:
        if self._connection is not None:
            _log.warning("the token host is gone", module=self.module)
        self._connection = None
        if not self._stopped:
            self._timer = self._reactor.callLater(self._wait, self.start)
            self._wait = min(self._wait * 2, _RETRY_LONGEST)


def _first_field(answer: Frame) -> bytes:
    return answer.fields[0]


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, client: TokenClient) -> None:
        self._client = client

    def buildProtocol(self, addr: Any) -> HostConnection:
        return _Connected(self._client)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self._client.connection_lost()


class _Connected(HostConnection):
    def __init__(self, client: TokenClient) -> None:
        super().__init__(client._reactor, client.told, client.connection_lost)
        self._client = client

    def connectionMade(self) -> None:
        self._client.connection_made(self)
