"""A key on a token for a command that signs once with it: `mailsec cert request --with TOKEN:NAME`.

The one invariant: one key is meant, or nothing is signed; and a PIN goes to one token, which was found before it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mailsec.app.databases import ask_password
from mailsec.app.options import DatabaseChoice
from mailsec.app.output import Output
from mailsec.app.token_choice import TokenChoice
from mailsec.errors import KeyUnavailable, UsageError
from mailsec.keys.reference import KeyReference, parse_reference
from mailsec.keys.token_handle import Ask, TokenHandle
from mailsec.model.tokens import TokenKey
from mailsec.tokens.catalogue import read_certificates, read_keys
from mailsec.tokens.module import Module
from mailsec.tokens.token import Token

__all__ = ["is_on_token", "key_on_token"]


def is_on_token(name: str) -> bool:
    """True for "token:nickname" and PKCS#11 URIs: no nickname of a database holds a colon."""
    return ":" in name


@contextmanager
def key_on_token(output: Output, database: DatabaseChoice, name: str, *, library: str, pin_file: str) -> Iterator[TokenHandle]:
    """The key called `name`, its token logged in, for as long as the block runs.

    Looked for among the modules of the configuration or of the database, or in `library` alone. Raise UsageError where none or several are
    meant, KeyUnavailable, TokenError.
    """
    reference = parse_reference(name)
    choice = TokenChoice(configuration=database.configuration, module=reference.module, library=library, stored=database)
    with choice.loaded(output) as modules:
        token = _token(modules, reference)
        info = token.info()
        if info.login_required:
            token.login(None if info.pin_pad else ask_password(pin_file, f'PIN of token "{info.label}"', option="--pin-file"))
        key = _key(token, reference)
        yield TokenHandle(name, key, _asking(token), offered=set(token.offered()), random=os.urandom)


def _token(modules: list[Module], reference: KeyReference) -> Token:
    there = [token for module in modules for token in module.present() if token.info().initialised]
    found = [
        token
        for token in there
        if reference.matches_token(
            label=token.state.label, manufacturer=token.state.manufacturer, serial=token.state.serial, model=token.state.model
        )
    ]
    if not found:
        seen = ", ".join(repr(token.state.label) for token in there) or "no token at all"
        raise KeyUnavailable(f"there is no token for {str(reference)!r}", hint=f"the modules show {seen}", stage="token")
    if len(found) > 1:
        # A PIN that is tried on several tokens is a wrong one on most of them.
        uris = " or ".join(str(KeyReference(token=one.state.label, attributes={"serial": one.state.serial}, uri=True)) for one in found[:4])
        raise UsageError(f"{len(found)} tokens are meant by {str(reference)!r}", hint=f"name one: {uris}")
    return found[0]


def _key(token: Token, reference: KeyReference) -> TokenKey:
    keys = [key for key in read_keys(token) if reference.id in (b"", key.id)]
    if reference.nickname:
        # As the gateway calls a key: by the label of its certificate, or by its own.
        called = {one.id for one in read_certificates(token) if one.label == reference.nickname}
        keys = [key for key in keys if key.label == reference.nickname or key.id in called]
    if not keys:
        shown = ", ".join(repr(key.label or key.id.hex()) for key in read_keys(token)[:8]) or "no private key"
        raise KeyUnavailable(
            f"token {token.state.label!r} has no key for {str(reference)!r}", hint=f"it shows {shown}", stage=f"token:{token.state.label}"
        )
    if len(keys) > 1:
        uris = " or ".join(str(KeyReference(token=token.state.label, id=key.id, uri=True)) for key in keys[:4])
        raise UsageError(f"{len(keys)} keys of token {token.state.label!r} are meant by {str(reference)!r}", hint=f"name one: {uris}")
    return keys[0]


def _asking(token: Token) -> Ask:
    async def ask(verb: str, key: TokenKey, operation: str, data: bytes) -> bytes:
        answer: bytes = getattr(token, verb)(key.id, operation, data)
        return answer

    return ask
