"""`mailsec token`: smart cards, HSMs and NSS databases: what is there, logins, PINs, what they can do, and whether they do it."""

from __future__ import annotations

import functools
from typing import Any

import click

from mailsec.app.library_child import in_child
from mailsec.app.output import Output, json_option, plural
from mailsec.app.token_choice import TokenChoice, token_options
from mailsec.errors import MailsecError, TokenError, UsageError

__all__ = ["init", "list_tokens", "login", "mechanisms", "pin", "selftest"]

_pin_file = click.option("--pin-file", metavar="FILE", default="", help="The PIN; - is standard input.")


@json_option
@click.command()
@token_options
@click.pass_obj
def list_tokens(output: Output, choice: TokenChoice) -> None:
    """List the tokens, with what lies on them. A running mailsec is asked; otherwise nobody is logged in."""
    rows: list[dict[str, Any]] = []
    hosts = choice.remote(output)
    for host in hosts:
        rows += [_row(token, len(host.certificates(_name(token))), len(host.keys(_name(token))), running=True) for token in host.tokens()]
        host.close()
    if not hosts:
        modules, state, _ = choice.settings(output)
        for module in modules:
            try:
                rows += in_child(functools.partial(_rows, module, state))
            except MailsecError as error:
                output.error(error.message, error.hint)
    output.result({"tokens": rows}, lambda: _table(output, rows))


def _rows(settings: Any, state: str) -> list[dict[str, Any]]:
    """What a module shows that is loaded here."""
    from mailsec.app.modules import load_module
    from mailsec.tokens.catalogue import read_certificates, read_keys

    rows = []
    with load_module(settings, state, read_only=True) as module:
        for token in module.tokens():
            found = [one for one in module.seen() if one.state.serial == token.serial and one.slot == token.slot]
            certificates = keys = 0
            if token.initialised and token.present and len(found) == 1:
                certificates, keys = len(read_certificates(found[0])), len(read_keys(found[0]))
            rows.append(_row(token, certificates, keys, running=False))
    return rows


def _name(token: Any) -> str:
    return f"pkcs11:token={_quoted(token.label)};serial={_quoted(token.serial)}"


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _row(token: Any, certificates: int, keys: int, *, running: bool) -> dict[str, Any]:
    return {
        "token": token.label,
        "module": token.module,
        "serial": token.serial,
        "manufacturer": token.manufacturer,
        "model": token.model,
        "slot": token.slot,
        "present": token.present,
        "initialised": token.initialised,
        "login_required": token.login_required,
        "logged_in": token.logged_in,
        "pin_pad": token.pin_pad,
        "read_only": token.read_only,
        "pin_state": token.pin_state,
        "marked": token.marked,
        "problem": token.problem,
        "certificates": certificates,
        "keys": keys,
        "served": running,
    }


def _table(output: Output, rows: list[dict[str, Any]]) -> None:
    output.table(
        ["token", "module", "serial", "state", "certificates", "keys"],
        [
            [row["token"] or "(blank)", row["module"], row["serial"], _state(row), row["certificates"] or "", row["keys"] or ""]
            for row in rows
        ],
        empty="There is no token: is the card in its reader?",
    )
    if any(row["marked"] or row["problem"] for row in rows):
        token = next(row["token"] for row in rows if row["marked"] or row["problem"])
        output.text(f'Out of service until somebody has logged in: mailsec token login "{token}"')


def _state(row: dict[str, Any]) -> str:
    if not row["initialised"]:
        return "blank"
    if row["problem"]:
        return str(row["problem"])
    words = {"low": "a wrong PIN was tried", "final-try": "one try of the PIN left", "locked": "PIN locked"}
    if row["pin_state"]:
        return words[row["pin_state"]]
    if not row["login_required"]:
        return "ready, no PIN needed"
    if row["logged_in"]:
        return "ready"
    return "out" if row["served"] else "not logged in"


@json_option
@click.command()
@click.argument("token")
@_pin_file
@click.option("--final-try", is_flag=True, help="Try the PIN although the token says that it locks if this one is wrong, too.")
@token_options
@click.pass_obj
def login(output: Output, token: str, pin_file: str, final_try: bool, choice: TokenChoice) -> None:
    """Try the PIN of TOKEN once; if it is right, a mark of an earlier login is lifted, and a running mailsec uses the token again."""
    hosts = [host for host in choice.remote(output) if any(token in (row["name"], row["label"]) for row in host.listing())]
    if len(hosts) > 1:
        raise UsageError(f"{len(hosts)} modules have a token {token!r}", hint="name one with --module")
    if hosts:
        row = next(row for row in hosts[0].listing() if token in (row["name"], row["label"]))
        pin = None if row.get("pin_pad") else _pin(pin_file, token)
        if pin is None:
            output.progress("type the PIN at the reader")
        hosts[0].login(row["name"], pin)
        output.result({"token": row["name"], "served": True}, f"{token}: the PIN is right, and mailsec uses the token")
        return
    with choice.module_of(output, token) as module:
        found = module.token(token)
        info = found.info()
        found.login(None if info.pin_pad else _pin(pin_file, token), person=True, final=final_try)
        output.result({"token": info.label, "served": False}, f"{token}: the PIN is right")


def _pin(file: str, token: str, prompt: str = "PIN of token") -> bytes:
    from mailsec.app.databases import ask_password

    return ask_password(file, f'{prompt} "{token}"', option="--pin-file")


@json_option
@click.command()
@click.argument("token")
@_pin_file
@click.option("--new-pin-file", metavar="FILE", default="", help="The new PIN; - is standard input.")
@token_options
@click.pass_obj
def pin(output: Output, token: str, pin_file: str, new_pin_file: str, choice: TokenChoice) -> None:
    """Change the PIN of TOKEN."""
    from mailsec.app.databases import ask_password

    if pin_file == new_pin_file == "-":
        raise UsageError("only one of the two PINs can be standard input", hint="give the other in a file")
    with choice.module_of(output, token) as module:
        if module.token(token).info().pin_pad:
            output.progress("type the PINs at the reader")
            old = new = None
        else:
            old = _pin(pin_file, token)
            new = ask_password(new_pin_file, f'New PIN of token "{token}"', confirm=True, option="--new-pin-file")
        module.set_pin(token, old, new)
    hint = "a running mailsec needs it where [passphrase] says, and by mailsec token login"
    output.result({"token": token}, f"{token}: the PIN was changed; {hint}")


@json_option
@click.command()
@click.argument("label")
@click.option("--slot", type=int, default=None, help="The slot; by default the first with a blank token. What is on it is deleted.")
@click.option("--so-pin-file", metavar="FILE", default="", help="The PIN of the security officer; - is standard input.")
@_pin_file
@token_options
@click.pass_obj
def init(output: Output, label: str, slot: int | None, so_pin_file: str, pin_file: str, choice: TokenChoice) -> None:
    """Make a token called LABEL, with a security officer's PIN and a user's PIN."""
    from mailsec.app.databases import ask_password

    if not label or len(label.encode()) > 32 or label != label.strip() or not label.isprintable():
        raise UsageError(f"not a name for a token: {label!r}", hint="at most 32 octets, without blanks at its ends")
    if so_pin_file == pin_file == "-":
        raise UsageError("only one of the two PINs can be standard input", hint="give the other in a file")
    with choice.loaded(output) as modules:
        if len(modules) != 1:
            raise UsageError(f"there are {len(modules)} modules", hint="name one with --module")
        if any(one.label == label and one.initialised and one.slot != slot for one in modules[0].tokens()):
            raise UsageError(f"there is a token {label!r} already", hint="two tokens with one label are hard to tell apart")
        so_pin = ask_password(so_pin_file, "PIN of the security officer", confirm=slot is None, option="--so-pin-file")
        made = modules[0].init_token(slot, label, so_pin, ask_password(pin_file, "PIN of the user", confirm=True, option="--pin-file"))
    output.result({"token": made.label, "serial": made.serial, "slot": made.slot}, f"{made.label}: made, serial {made.serial}")


@json_option
@click.command()
@click.argument("token")
@token_options
@click.pass_obj
def mechanisms(output: Output, token: str, choice: TokenChoice) -> None:
    """List what TOKEN can do, and what mail is signed and opened with."""
    with choice.module_of(output, token) as module:
        found = module.mechanisms(token)
    rows = [
        {"name": one.name, "smallest": one.smallest, "largest": one.largest, "hardware": one.hardware, "uses": list(one.uses)}
        for one in found
    ]
    output.result(
        {"token": token, "mechanisms": rows},
        lambda: output.table(
            ["mechanism", "keys", "uses", ""],
            [
                [
                    one.name,
                    f"{one.smallest}-{one.largest}" if one.largest else "",
                    ", ".join(one.uses),
                    "in hardware" if one.hardware else "",
                ]
                for one in found
            ],
        ),
    )


@json_option
@click.command()
@click.argument("token")
@_pin_file
@token_options
@click.pass_obj
def selftest(output: Output, token: str, pin_file: str, choice: TokenChoice) -> int:
    """Log in to TOKEN and use each of its keys; every result is checked in software. Exit 0 where all is well."""
    from mailsec.app.token_test import try_key

    with choice.module_of(output, token) as module:
        one = module.token(token)
        info = one.info()
        if info.login_required:
            one.login(None if info.pin_pad else _pin(pin_file, token))
        rows = [row for key in module.keys(token) for row in try_key(module, key)]
        if not rows:
            raise TokenError(f"token {token!r} has no private key", hint="make one, or import one")
    failed = [row for row in rows if row["good"] is False]
    output.result(
        {"token": token, "good": not failed, "operations": rows},
        lambda: output.table(
            ["", "key", "operation", "milliseconds", "reason"],
            [[output.mark(row["good"]), row["key"], row["operation"], f"{row['milliseconds']:.2f}", row["reason"]] for row in rows],
        ),
    )
    output.text(f"{plural(len(rows), 'operation')}, {len(failed)} failed" if failed else f"{plural(len(rows), 'operation')}, all good")
    return 1 if failed else 0
