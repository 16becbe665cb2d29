"""What lies on one token, for the commands that list, show, write and delete certificates and keys one by one: `--token TOKEN`.

The one invariant: without its PIN a token is only looked at.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from mailsec.app.options import DatabaseChoice, token_options
from mailsec.app.output import Output
from mailsec.errors import UsageError

if TYPE_CHECKING:
    from mailsec.store.nssdb import NssDb

__all__ = ["on_token", "open_token"]

F = TypeVar("F", bound=Callable[..., Any])


def on_token(command: F) -> F:
    """Add `--token`, `--library` and `--pin-file` below `database_options`: the command's `database` says them, too."""

    @token_options("What lies on this token, instead of the database.")
    @functools.wraps(command)
    def with_token(*args: Any, token: str, library: str, pin_file: str, database: DatabaseChoice, **kwargs: Any) -> Any:
        if not token and (library or pin_file):
            raise UsageError("--library and --pin-file belong to --token", hint='as in --token "HSM 1" --pin-file FILE')
        if token and database.database.startswith("nss:"):
            raise UsageError("-d nss:DIR is a token already", hint="leave --token out, or name another database")
        return command(*args, database=replace(database, token=token, library=library, pin_file=pin_file), **kwargs)

    return with_token  # type: ignore[return-value]  # click's decorators keep the callable, mypy sees the wrapper's type


def open_token(output: Output, choice: DatabaseChoice, *, look: bool = False) -> NssDb:
    """The token that `--token` named, as a database; with `look`, one whose PIN nobody can be asked for is opened all the same, without a
    login. Raise UsageError, KeyUnavailable, TokenError.
    """
    from mailsec.app.databases import ask_password
    from mailsec.app.token_choice import TokenChoice
    from mailsec.store.nssdb import NssDb

    tokens = TokenChoice(configuration=choice.configuration, library=choice.library, stored=choice)
    with ExitStack() as stack:
        module = stack.enter_context(tokens.module_of(output, choice.token))
        token = module.token(choice.token)
        info = token.info()
        if info.login_required and look and not choice.pin_file and not sys.stdin.isatty():
            output.warning("nobody is logged in: private keys are not shown", "give the PIN with --pin-file FILE")
        elif info.login_required:
            token.login(None if info.pin_pad else ask_password(choice.pin_file, f'PIN of token "{info.label}"', option="--pin-file"))
        return NssDb(module, info.label, f'token "{info.label}"', close=stack.pop_all().close)
