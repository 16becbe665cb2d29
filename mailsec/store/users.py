"""Users of the database: a login, a SCRAM-SHA-256 verifier, and the addresses that they may send as.

The one invariant: a user whose row mailsec did not write, or any user while rows of the table are missing, does not log in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from mailsec.errors import AddressError, Refused, Tampered, UsageError
from mailsec.model.address import Address
from mailsec.model.trust import UserEntry
from mailsec.store.connection import fetch
from mailsec.store.database import Database, now
from mailsec.store.ledger import Changes
from mailsec.store.patterns import check_patterns
from mailsec.store.schema import users
from mailsec.store.scram import ITERATIONS, Verifier, dummy_verifier, make_verifier, prepare

__all__ = ["Users"]

_LONGEST_LOGIN = 320
_LONGEST_PASSWORD = 1024


class Users(Database):
    """The part of the database that knows users."""

    def users(self) -> Sequence[UserEntry]:
        """Every user, by login."""
        with self.reading() as connection:
            whole = not self.problem(connection, "users")
            rows = fetch(connection, select(users).order_by(users.c.login_key))
            return [_entry(row, verified=whole and self.authentic("users", row)) for row in rows]

    def check_password(self, login: str, password: bytes) -> UserEntry | None:
        """The user, if the password fits. It takes as long where there is no such user, or a disabled one.

        Raise Tampered where the row, or the table, is not what mailsec wrote.
        """
        user, verifier = self._verifier(login)
        fits = len(password) <= _LONGEST_PASSWORD and verifier.fits(password)
        return user if fits and user is not None and not user.disabled else None

    def find_user(self, login: str) -> UserEntry | None:
        """The user of that login, disabled ones too, for who trusts another one's word that it is there; None where there is none.

        Raise Tampered where the row, or the table, is not what mailsec wrote.
        """
        return self._verifier(login)[0]

    def verifier(self, login: str) -> Verifier:
        """For SCRAM: the verifier of `login`, or one that fits nothing where there is no such user or a disabled one."""
        return self.user_and_verifier(login)[1]

    def user_and_verifier(self, login: str) -> tuple[UserEntry | None, Verifier]:
        """The same with whose it is."""
        user, verifier = self._verifier(login)
        return (user, verifier) if user is not None and not user.disabled else (None, self._dummy(login))

    def add_user(
        self, login: str, password: bytes, addresses: Sequence[str] = (), *, at: datetime | None = None, iterations: int = ITERATIONS
    ) -> UserEntry:
        """Add a user. Without addresses, a login that is an address may send as this address."""
        login = _check_login(login)
        patterns = check_patterns(addresses or _own_address(login))
        values = {
            "login": login,
            "login_key": _login_key(login),
            **self._verifier_columns(password, iterations),
            "addresses": json.dumps(patterns),
            "disabled": False,
            "created_at": int((at or now()).timestamp()),
        }
        with self.writing() as changes:
            self._demand_users(changes)
            if changes.connection.execute(select(users.c.id).where(users.c.login_key == values["login_key"])).first():
                raise UsageError(f"there is a user {login!r} already", hint=f"`mailsec user password {login}` changes the password")
            changes.insert("users", values)
        return UserEntry(login, patterns, datetime.fromtimestamp(values["created_at"], UTC))

    def set_password(self, login: str, password: bytes, *, iterations: int = ITERATIONS) -> None:
        """Give a user another password."""
        self._change_user(login, self._verifier_columns(password, iterations))

    def set_addresses(self, login: str, addresses: Sequence[str]) -> None:
        """Say which addresses a user may send as."""
        self._change_user(login, {"addresses": json.dumps(check_patterns(addresses))})

    def set_disabled(self, login: str, disabled: bool) -> None:
        """Keep a user from logging in, or let them again."""
        self._change_user(login, {"disabled": disabled})

    def demand_user(self, login: str) -> None:
        """Raise Refused where there is no such user."""
        with self.reading() as connection:
            _row(connection, login)

    def remove_user(self, login: str) -> None:
        """Remove a user."""
        with self.writing() as changes:
            changes.delete("users", _row(changes.connection, login))

    # -- within a transaction ----------------------------------------------------------------------------------------------

    def _verifier(self, login: str) -> tuple[UserEntry | None, Verifier]:
        self._unlocked()
        with self.reading() as connection:
            if problem := self.problem(connection, "users"):
                raise Tampered(f"nobody can log in: {problem}", hint="`mailsec db check` shows more")
            row = None
            # What no login may hold, nobody is called; PostgreSQL would not even take the question (NUL).
            if len(login) <= _LONGEST_LOGIN and login.isprintable():
                row = next(iter(fetch(connection, select(users).where(users.c.login_key == _login_key(login)))), None)
            if row is None:
                return None, self._dummy(login)
            if not self.authentic("users", row):
                raise Tampered(
                    f"the row of user {login!r} was changed by something else than mailsec", hint="remove the user and add it again"
                )
        return _entry(row, verified=True), Verifier(row["salt"], row["iterations"], row["stored_key"], row["server_key"])

    def _dummy(self, login: str) -> Verifier:
        # Attack: "alice" and "Alice" have one salt where they are somebody's, so they have one where they are nobody's.
        return dummy_verifier(self._unlocked().derive("dummy verifier"), _login_key(login[:_LONGEST_LOGIN]))

    def _verifier_columns(self, password: bytes, iterations: int) -> dict[str, Any]:
        if not password:
            raise UsageError("the password is empty", hint="give one of at least eight characters")
        if len(password) > _LONGEST_PASSWORD:
            raise UsageError(f"the password has more than {_LONGEST_PASSWORD} octets", hint="give a shorter one")
        if b"\0" in password:
            # RFC 4616 §2: NUL parts the fields of PLAIN, so no password holds one.
            raise UsageError("the password holds a NUL", hint="give one without")
        verifier = make_verifier(password, self._unlocked().random(16), iterations)
        return {
            "salt": verifier.salt,
            "iterations": verifier.iterations,
            "stored_key": verifier.stored_key,
            "server_key": verifier.server_key,
        }

    def _demand_users(self, changes: Changes) -> None:
        if problem := self.problem(changes.connection, "users"):
            raise Tampered(
                problem, hint="`mailsec db check` shows more; restore a backup, or `mailsec db check --accept` believes the rest"
            )

    def _change_user(self, login: str, values: dict[str, Any]) -> None:
        with self.writing() as changes:
            self._demand_users(changes)
            changes.update("users", _row(changes.connection, login), values)


def _row(connection: Connection, login: str) -> Mapping[str, Any]:
    row = next(iter(fetch(connection, select(users).where(users.c.login_key == _login_key(login)))), None)
    if row is None:
        raise Refused(f"there is no user {login[:80]!r}", hint="`mailsec user list` shows those that there are")
    return row


def _login_key(login: str) -> str:
    """Logins are compared prepared (RFC 5802 §5.1: SASLprep) and without case."""
    return prepare(login).lower()


def _check_login(login: str) -> str:
    if not login or len(login) > _LONGEST_LOGIN or login != login.strip() or not login.isprintable():
        raise UsageError(f"not a login: {login[:80]!a}", hint="a login is a word or an address, as in alice@example.org")
    return login


def _own_address(login: str) -> tuple[str, ...]:
    try:
        return (Address.parse(login).key,)
    except AddressError:
        raise UsageError(
            f"login {login!r} is no address: say which addresses it may send as", hint="as in --address alice@example.org"
        ) from None


def _entry(row: Mapping[str, Any], *, verified: bool) -> UserEntry:
    try:
        addresses = tuple(str(pattern) for pattern in json.loads(row["addresses"]))
        created = datetime.fromtimestamp(row["created_at"], UTC)
    except (ValueError, TypeError, OverflowError, OSError, RecursionError):  # an edited row: it can be shown, no more
        return UserEntry(str(row["login"]), (), None, bool(row["disabled"]), verified=False)
    return UserEntry(str(row["login"]), addresses, created, bool(row["disabled"]), verified=verified)
