"""One question to one server, blocking: connect, STARTTLS, log in, search. Called in threads.

The one invariant: nothing is said to a server, no name and no password, before TLS stands and the server is the one that was meant, where TLS
is wanted; referrals are not followed.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

import ldap3
from ldap3.core.exceptions import LDAPExceptionError

from mailsec.errors import LimitExceeded, Unavailable
from mailsec_ldap.guarded import Allowance, GuardedSocket, GuardedTls
from mailsec_ldap.places import ServerAddress

__all__ = ["NO_ATTRIBUTE", "Entry", "Login", "Query", "ServerConnection", "read_password"]

# RFC 4511 §4.1.9
_SUCCESS, _SIZE_LIMIT, _REFERRAL, _NO_SUCH_OBJECT = 0, 4, 10, 32
_SERVERS_OWN = frozenset({1, 2, 51, 52, 53, 80})
"""operationsError, protocolError, busy, unavailable, unwillingToPerform, other: another server may do better."""
NO_ATTRIBUTE = "1.1"
"""RFC 4511 §4.5.1.8: entries are wanted, and nothing of them."""
_FAILURES = (LDAPExceptionError, OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError, UnicodeError)
"""What ldap3 raises for a server that is gone, and for octets that are no LDAP."""


@dataclass(frozen=True, slots=True)
class Login:
    """How one is known to a server. Its `repr` shows no password."""

    name: str = ""
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked."""

    base: str
    filter: str
    attributes: tuple[str, ...]
    """Names without ";binary", or NO_ATTRIBUTE."""
    subtree: bool = True
    entries: int = 20
    """How many entries are wanted at most; more is not an error."""
    octets: int = 1024 * 1024
    """How long an answer may be at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, with the attributes that were asked for."""

    name: str
    values: dict[str, tuple[bytes, ...]]
    """By name in lower case, without ";binary"."""


class ServerConnection:
    """A connection that is used for one question after the other."""

    def __init__(self, server: ServerAddress, address: str, tls: ssl.SSLContext | None) -> None:
        """`address`: what is connected to (a name, or the address that was checked); `tls`: None for none."""
        self._server = server
        self._allowance = Allowance()
        self._starttls = tls is not None and not server.implicit_tls
        own_tls = GuardedTls(tls, server.host, self._allowance) if tls is not None else None
        self._target = ldap3.Server(address, server.port, use_ssl=server.implicit_tls, tls=own_tls, get_info=ldap3.NONE)
        self._connection: Any = None

    def search(self, query: Query, login: Login, seconds: float) -> list[Entry]:
        """The entries; raise Unavailable, with stage "server" where another server may do better, LimitExceeded for too much."""
        self._allowance.renew(query.octets, seconds)
        try:
            fresh = self._connection is None
            if fresh:
                self._open(login, seconds)
            try:
                return self._ask(query)
            except _FAILURES:
                # A connection that was kept may have been closed by the server since.
                if fresh or self._allowance.octets < 0:
                    raise
                self.close()
                self._open(login, seconds)
                return self._ask(query)
        except _FAILURES as error:
            self.close()
            if self._allowance.octets < 0:
                raise LimitExceeded("fetch_octets", f"{self._server} sends more than {query.octets} octets", stage="ldap") from None
            raise Unavailable(f"{self._server}: {_words(error)}", stage="server") from None

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.strategy.close()
            except _FAILURES:
                # It was closed already, by the other side.
                pass

    def _open(self, login: Login, seconds: float) -> None:
        password = read_password(login.password_file) if login.name else None
        self._target.connect_timeout = self._allowance.seconds
        connection = ldap3.Connection(
            self._target,
            user=login.name or None,
            password=password,
            authentication=ldap3.SIMPLE if login.name else ldap3.ANONYMOUS,
            client_strategy=ldap3.SYNC,
            auto_referrals=False,
            check_names=False,
            read_only=True,
            raise_exceptions=False,
        )
        self._connection = connection
        connection.open(read_server_info=False)
        if not isinstance(connection.socket, GuardedSocket):
            connection.socket = GuardedSocket(connection.socket, self._allowance)
        if self._starttls and not connection.start_tls(read_server_info=False):
            raise OSError("the server does not begin TLS")
        # RFC 4513 §5.1.1: who is nobody need not say so.
        if login.name and not connection.bind(read_server_info=False):
            raise OSError(f"the login is refused: {connection.result['description']}")

    def _ask(self, query: Query) -> list[Entry]:
        connection = self._connection
        connection.search(
            query.base,
            query.filter,
            search_scope=ldap3.SUBTREE if query.subtree else ldap3.BASE,
            dereference_aliases=ldap3.DEREF_NEVER,
            # RFC 4522 §3 wants ";binary" for these; Active Directory knows it for none, OpenLDAP not for userSMIMECertificate.
            attributes=[spelt for one in query.attributes for spelt in ((one,) if one == NO_ATTRIBUTE else (f"{one};binary", one))],
            size_limit=query.entries,
            time_limit=max(1, int(self._allowance.seconds)),
        )
        code, description = connection.result["result"], connection.result["description"]
        entries = [_entry(one) for one in connection.response or () if one["type"] == "searchResEntry"][: query.entries]
        if code == _SUCCESS or (code == _SIZE_LIMIT and entries):
            return entries
        # RFC 4511 §4.1.10. Attack: a server that sends us elsewhere.
        text = "it refers to another server, and referrals are not followed" if code == _REFERRAL else f"it answers {description}"
        if code == _NO_SUCH_OBJECT:
            text = f"it has no entry {query.base!r}"
        stage = "server" if code in _SERVERS_OWN else "ldap"
        raise Unavailable(f"{self._server}: {text}", hint="see [plugin.ldap]", stage=stage)


def _entry(found: dict[str, Any]) -> Entry:
    values: dict[str, tuple[bytes, ...]] = {}
    for name, several in found["raw_attributes"].items():
        key = name.lower().removesuffix(";binary")
        values[key] = values.get(key, ()) + tuple(several)
    return Entry(found["dn"], values)


def read_password(path: str) -> str:
    """The first line of the file, as it is at this moment. Raise OSError where it cannot be read, or is none."""
    with open(path, "rb") as file:  # noqa: PTH123 - it is read in a thread, and may be a pipe
        line = file.readline(4096).rstrip(b"\r\n")
    if not line:
        # RFC 4513 §5.1.2: a bind without a password succeeds, and proves nothing.
        raise OSError(f"there is no password in {path}")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        # RFC 4513 §5.1.3: a textual password is UTF-8.
        raise OSError(f"the password in {path} is not UTF-8") from None


def _words(error: Exception) -> str:
    if not isinstance(error, (LDAPExceptionError, OSError)):
        return f"it answers something else than LDAP ({type(error).__name__})"
    return (str(error) or type(error).__name__).splitlines()[0][:200]
