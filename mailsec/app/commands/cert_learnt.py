"""`mailsec cert learnt`: certificates that correspondents' mail has taught, and what a person decides about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import AddressError, Refused, UsageError
from mailsec.model.address import Address

if TYPE_CHECKING:
    from mailsec.model.correspondents import KnownCertificate
    from mailsec.store.learnt import Learnt

__all__ = ["learnt"]

_DONE = {
    "accept": "is used from now on",
    "reject": "is not used; signatures with it are judged as ever",
    "pin": "is pinned: no other certificate is used for its addresses",
    "block": "is blocked: nothing signed with it is believed, and nothing is encrypted to it",
}


@json_option
@click.command()
@click.argument("decision", metavar="[accept|reject|pin|block]", default="")
@click.argument("which", metavar="[ADDRESS|FINGERPRINT]", default="")
@click.option("--pending", is_flag=True, help="Only those that wait for a person.")
@database_options
@click.pass_obj
def learnt(output: Output, decision: str, which: str, pending: bool, database: DatabaseChoice) -> None:
    """List the certificates that mail has taught, those first that wait for a decision; or decide about one.

    \b
    mailsec cert learnt --pending
    mailsec cert learnt accept bob@example.net      the one that waits for him
    mailsec cert learnt pin 5f3a9c01                by its SHA-256, also one that mail has not taught

    A certificate waits where it would take the place of another one: another key, from another authority or too early.
    """
    from mailsec.app.databases import open_database
    from mailsec.store.learnt import DECISIONS, Learnt

    if decision and decision not in DECISIONS:
        raise UsageError(f"a certificate cannot be {decision!r}", hint="accept, reject, pin or block")
    if decision and not which:
        raise UsageError(f"say which certificate to {decision}", hint="its address, or eight digits of its SHA-256")
    if decision and pending:
        raise UsageError("--pending is for the list", hint="leave it out")
    with open_database(output, database, look=not decision) as opened:
        book = Learnt(opened)
        if decision:
            decided = book.decide(_fingerprint(book, which), decision)
            value = _value(decided, [])
            output.result({"certificates": [value]}, f'"{decided.entry.nickname}" ({value["fingerprint"][:16]}) {_DONE[decision]}')
            return
        shown = [one for one in book.seen() if not pending or one.state == "pending"]
        shown.sort(key=lambda one: one.state != "pending")
        values = [_value(one, _instead(book, one)) for one in shown]
    output.result(
        {"certificates": values},
        lambda: output.table(
            ["address", "state", "certificate", "seen", "times", "from", "instead of"],
            [_row(one, value) for one, value in zip(shown, values, strict=True)],
            empty="Nothing waits." if pending else "No mail has taught anything yet.",
        ),
    )


def _fingerprint(book: Learnt, which: str) -> str:
    """Digits of a fingerprint as they are; for an address those of the one certificate that waits for it."""
    if "@" not in which:
        return which
    try:
        address = Address.parse(which)
    except AddressError as error:
        raise UsageError(error.message, hint=error.hint) from None
    waiting = {_digits(one) for one in book.seen("pending") if one.address == address.key}
    if len(waiting) == 1:
        return waiting.pop()
    known = {_digits(one) for one in book.known(address)}
    if not waiting and len(known) == 1:
        return known.pop()
    what = f"{len(waiting)} certificates wait" if waiting else "no certificate waits"
    hint = ", ".join(each[:16] for each in sorted(waiting or known)) or "`mailsec cert learnt` shows those that there are"
    raise Refused(f"{what} for {address}", hint=hint)


def _digits(one: KnownCertificate) -> str:
    import hashlib

    return hashlib.sha256(one.entry.der).hexdigest()


def _instead(book: Learnt, one: KnownCertificate) -> list[str]:
    """The certificates in use whose place a waiting one would take."""
    if one.state != "pending" or not one.address:
        return []
    return [_digits(each) for each in book.known(Address.parse(one.address)) if each.state in ("", "pinned")]


def _value(one: KnownCertificate, instead: list[str]) -> dict[str, Any]:
    from mailsec.app.commands.cert import described

    facts = described(one.entry)
    return {
        **facts,
        "state": one.state or None,
        "address": one.address or None,
        "seen_in": one.source or None,
        "first_seen": one.first_seen,
        "last_seen": one.last_seen,
        "times": one.times,
        "instead_of": instead,
    }


def _row(one: KnownCertificate, value: dict[str, Any]) -> list[object]:
    state = "NOT VERIFIED" if not one.entry.verified else "PENDING: another key" if one.state == "pending" else one.state or "in use"
    seen = f"{one.last_seen:%Y-%m-%d}" if one.last_seen else ""
    return [
        one.address,
        state,
        value["fingerprint"][:16],
        seen,
        one.times,
        one.source,
        ", ".join(each[:16] for each in value["instead_of"]),
    ]
