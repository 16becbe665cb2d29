"""Certificates and keys from files, put on a token by command: `cert import`, `p12 import` and `key import` with `--token`.

The one invariant: what belongs together (a key and its certificate) is on the token whole afterwards, or not at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mailsec.app.nicknames import nickname_for
from mailsec.app.options import DatabaseChoice, token_options
from mailsec.app.output import Output
from mailsec.errors import UsageError
from mailsec.store.facts import demand_key_fits
from mailsec.store.nicknames import check_nickname, free_nickname, make_nickname
from mailsec.x509.certificate import load_certificate

if TYPE_CHECKING:
    from mailsec.tokens.module import Module
    from mailsec.tokens.token import Token

__all__ = ["PutOn", "TokenPlace", "place_options", "put_key", "put_on_token", "say_put"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """What `--token`, `--library` and `--pin-file` said."""

    token: str
    library: str = ""
    pin_file: str = ""

    def __bool__(self) -> bool:
        return bool(self.token)

    def demand(self, database: DatabaseChoice) -> None:
        """Raise UsageError for options that do not go together."""
        if not self.token and (self.library or self.pin_file):
            raise UsageError("--library and --pin-file belong to --token", hint='as in --token "HSM 1" --pin-file FILE')
        if self.token and database.database.startswith("nss:"):
            raise UsageError("-d nss:DIR is a token already", hint="leave --token out, or name another database")


@dataclass(frozen=True, slots=True)
class PutOn:
    """A certificate on a token."""

    nickname: str
    key_id: bytes
    der: bytes
    has_key: bool
    new: bool


def place_options(command: F) -> F:
    """Add `--token`, `--library` and `--pin-file`, given to the command as one argument `place`, a TokenPlace."""

    @token_options("Put it on this token instead of the database.")
    @functools.wraps(command)
    def with_place(*args: Any, token: str, library: str, pin_file: str, **kwargs: Any) -> Any:
        return command(*args, place=TokenPlace(token, library, pin_file), **kwargs)

    return with_place  # type: ignore[return-value]  # click's decorators keep the callable, mypy sees the wrapper's type


@contextmanager
def _opened(output: Output, database: DatabaseChoice, place: TokenPlace) -> Iterator[tuple[Module, Token]]:
    """The token, logged in."""
    from mailsec.app.databases import ask_password
    from mailsec.app.token_choice import TokenChoice

    choice = TokenChoice(configuration=database.configuration, library=place.library, stored=database)
    with choice.module_of(output, place.token) as module:
        token = module.token(place.token)
        info = token.info()
        if info.login_required:
            token.login(None if info.pin_pad else ask_password(place.pin_file, f'PIN of token "{info.label}"', option="--pin-file"))
        yield module, token


def put_key(output: Output, database: DatabaseChoice, place: TokenPlace, private_key: bytes, label: str) -> dict[str, Any]:
    """Put a private key (PKCS#8 DER) on the token; what it is there. Raise PrivateKeyError, TokenError, KeyUnavailable, UsageError."""
    with _opened(output, database, place) as (module, _):
        key = module.import_key(place.token, private_key, label)
    return {"token": key.token, "label": key.label, "id": key.id.hex(), "key_type": key.key_type, "bits": key.bits}


def put_on_token(
    output: Output, database: DatabaseChoice, place: TokenPlace, items: Sequence[tuple[bytes, bytes | None, str]], nickname: str = ""
) -> tuple[str, list[PutOn]]:
    """Put certificates on a token, each with its private key where there is one: (DER, PKCS#8 DER or None, suggested name).

    The first is called `nickname` where that is given. What is there already stays as it is, and keeps its name. The label of the token, and
    what is there now. Raise PrivateKeyError, TokenError, KeyUnavailable, UsageError.
    """
    for der, private_key, _ in items:
        if not load_certificate(der).readable:
            raise UsageError("a certificate cannot be read", hint="`mailsec cert import` without --token keeps it in the database")
        if private_key is not None:
            demand_key_fits(private_key, load_certificate(der).spki)
    done = []
    with _opened(output, database, place) as (module, token):
        for number, (der, private_key, suggested) in enumerate(items):
            done.append(_put(module, token, place.token, der, private_key, nickname if not number else "", suggested))
        return token.state.label, done


def _put(module: Module, token: Token, name: str, der: bytes, private_key: bytes | None, nickname: str, suggested: str) -> PutOn:
    from mailsec.tokens.catalogue import read_certificates, read_keys

    there = read_certificates(token)
    spki, subject = load_certificate(der).spki, load_certificate(der).subject.der
    # As NSS has it: of one subject several may have a name, of two subjects never.
    taken = {one.label for one in there if load_certificate(one.der).subject.der != subject}
    if nickname and check_nickname(nickname) in taken:
        raise UsageError(f"another subject has the nickname {nickname!r} on the token", hint="choose another nickname")
    label = nickname or free_nickname(make_nickname(suggested, nickname_for(der)), taken)
    same = next((one for one in there if one.der == der), None)
    made = None
    if private_key is not None and all(key.public_key != spki for key in read_keys(token)):
        made = module.import_key(name, private_key, same.label if same is not None else label)
    if same is None:
        try:
            module.import_certificate(name, der, label)
        except BaseException:
            if made is not None:
                module.delete_key(name, made.id)
            raise
    found = next(one for one in read_certificates(token) if one.der == der)
    return PutOn(found.label, found.id, der, any(key.public_key == spki for key in read_keys(token)), same is None)


def say_put(output: Output, label: str, done: Sequence[PutOn]) -> None:
    """The answer of a command that has put certificates on a token."""
    from mailsec.x509.certificate import summary

    def say() -> None:
        for one in done:
            what = "with its key" if one.has_key else "without a key"
            output.text(f'"{label}:{one.nickname}" is {"there" if one.new else "there already"} ({what})')

    rows = []
    for one in done:
        facts = summary(load_certificate(one.der))
        rows.append(
            {
                "nickname": one.nickname,
                "id": one.key_id.hex(),
                "subject": facts.subject,
                "addresses": list(facts.addresses),
                "not_after": facts.not_after,
                "fingerprint": facts.fingerprint,
                "has_key": one.has_key,
                "new": one.new,
            }
        )
    output.result({"token": label, "certificates": rows}, say)
