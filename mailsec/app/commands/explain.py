"""`mailsec explain FILE`: what would happen to a message, step by step, and why; nothing is signed, stored or sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from mailsec.app.options import config_option
from mailsec.app.output import Output, json_option
from mailsec.errors import AddressError, Reply, UsageError

if TYPE_CHECKING:
    from mailsec.gateway.explanation import Explanation
    from mailsec.gateway.pipeline import Pipeline
    from mailsec.interfaces import Outcome
    from mailsec.model.address import Address
    from mailsec.model.message import Message
    from mailsec.model.session import Session
    from mailsec.model.settings import GatewaySettings
    from mailsec.store.certdb import CertDb

__all__ = ["explain"]


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option("--origin", type=click.Choice(["submission", "trusted", "internet", "mailbox"]), default=None, help="Where it comes from.")
@click.option("--from", "sender", metavar="ADDRESS", default="", help='MAIL FROM; "<>" is the null path  [default: the From address]')
@click.option("--to", "recipients", metavar="ADDRESS", multiple=True, help="RCPT TO; may be repeated  [default: To and Cc]")
@click.option("--user", default="", help="Who is logged in  [default: somebody who may use the From address; on mailbox nobody]")
@click.option("--listener", default="", help="The name of the listener  [default: the first of that origin]")
@config_option
@click.pass_obj
def explain(
    output: Output, *, file: str, origin: str | None, sender: str, recipients: tuple[str, ...], user: str, listener: str, configuration: str
) -> int:
    """Tell what would happen to the message in FILE, and why. The exit code is 1 if it would be refused."""
    from mailsec.app.assembly import make_pipeline
    from mailsec.app.command_runtime import CommandRuntime, NoSpool
    from mailsec.app.config import gateway_settings
    from mailsec.app.config.models import Log
    from mailsec.app.logs import configure_logs
    from mailsec.app.messages import read_message
    from mailsec.app.opening import open_configuration
    from mailsec.gateway.mailbox import envelope_of
    from mailsec.interfaces import run_now
    from mailsec.model.session import Envelope, Recipient

    # What the gateway would write down is told here by the answer; standard output is for that.
    configure_logs(Log(level="error"), lasting=False)
    message = read_message(file, "smime").message
    loaded, database = open_configuration(configuration, consequence="nothing was done")
    with database:
        settings = gateway_settings(loaded)
        _, pipeline = make_pipeline(loaded, settings, database, CommandRuntime(), NoSpool())
        session = _session(settings, database, message, origin or "", listener, user)
        if session.origin.value == "mailbox":
            session = replace(session, identity=run_now(pipeline.owner(session, user)))
            shown = run_now(pipeline.explain(pipeline.begin(session, envelope_of(session), message.octets)))
            output.result(_json(session, None, [], shown), lambda: _tell(output, settings, session, None, [], shown))
            return 0
        reverse_path = _reverse_path(message, sender)
        to = _recipients(message, recipients)
        admitted = run_now(_admit(pipeline, session, reverse_path, to))
        taken = [address for address, refused in admitted if refused is None]
        explanation = None
        if taken:
            envelope = Envelope(reverse_path, tuple(Recipient(address) for address in taken))
            explanation = run_now(pipeline.explain(pipeline.begin(session, envelope, message.octets)))
    outcomes: Sequence[Outcome] = explanation.outcomes if explanation is not None else ()
    refused = any(reply is not None for _, reply in admitted) or any(outcome.decision.action == "refuse" for outcome in outcomes)
    value = _json(session, reverse_path, admitted, explanation)
    output.result(value, lambda: _tell(output, settings, session, reverse_path, admitted, explanation))
    return 1 if refused else 0


def _session(settings: GatewaySettings, database: CertDb, message: Message, origin: str, name: str, user: str) -> Session:
    from mailsec.model.session import Session

    listeners = [one for one in settings.listeners if (not name or one.name == name) and (not origin or one.origin.value == origin)]
    if not listeners:
        known = ", ".join(f"{one.name} ({one.origin.value})" for one in settings.listeners)
        what = f'"{name}"' if name else f"with the origin {origin}"
        if any(one.name == name for one in settings.listeners):
            what += f" with the origin {origin}"
        raise UsageError(f"there is no listener {what}", hint=f"there are: {known}")
    if not origin and not name and len({one.origin for one in listeners}) > 1:
        raise UsageError("where does the message come from?", hint="--origin submission, trusted, internet or mailbox")
    chosen = listeners[0]
    identity = _identity(database, message, user) if chosen.authenticate else None
    mailbox = chosen.mailbox.upstream if chosen.mailbox is not None else None
    return Session(
        id="explain",
        listener=chosen.name,
        origin=chosen.origin,
        peer="127.0.0.1",
        local=chosen.address,
        hostname=settings.hostname,
        helo="localhost",
        protocol="ESMTPSA" if identity is not None else "ESMTP",
        identity=identity,
        behind_own_mta=chosen.behind_own_mta,
        upstream="" if mailbox is None else str(mailbox),
    )


def _identity(database: CertDb, message: Message, login: str) -> Any:
    """The user called `login`, or the first who may use the From address; None where nobody may."""
    from mailsec.model.session import Identity
    from mailsec.smime.identity import read_author

    users = [one for one in database.users() if one.verified and not one.disabled]
    if login:
        users = [one for one in users if one.login == login]
        if not users:
            raise UsageError(f'there is no user "{login}"', hint='"mailsec user list" shows them')
        return Identity(users[0].login, users[0].addresses, "PLAIN")
    author = read_author(message).address
    identities = [Identity(one.login, one.addresses, "PLAIN") for one in users]
    if author is not None:
        for identity in identities:
            if identity.may_use(author):
                return identity
    if not identities:
        raise UsageError("the database has no user", hint='"mailsec user add" adds one')
    return identities[0]


def _reverse_path(message: Message, given: str) -> Address | None:
    from mailsec.model.address import NULL_PATH, Address
    from mailsec.smime.identity import read_author

    if given == NULL_PATH:
        return None
    if given:
        return Address.parse(given)
    author = read_author(message).address
    if author is None:
        raise UsageError("the message has no single From address", hint="say who sends it with --from ADDRESS")
    return author


def _recipients(message: Message, given: Sequence[str]) -> list[Address]:
    from mailsec.mime.addresses import mailboxes
    from mailsec.model.address import Address

    try:
        found = [Address.parse(text) for text in given]
    except AddressError as error:
        raise UsageError(error.message, hint=error.hint) from error
    if not found:
        found = [address for name in ("to", "cc") for value in message.values(name) for address in mailboxes(value).addresses]
    if not found:
        raise UsageError("the message has no recipients", hint="name them with --to ADDRESS")
    return list(dict.fromkeys(found))


async def _admit(
    pipeline: Pipeline, session: Session, reverse_path: Address | None, recipients: Sequence[Address]
) -> list[tuple[Address, Reply | None]]:
    """What RCPT would be answered for each; None: welcome."""
    refused = pipeline.admit_sender(session, reverse_path)
    if refused is not None:
        return [(recipient, refused) for recipient in recipients]
    admitted: list[tuple[Address, Reply | None]] = []
    for recipient in recipients:
        answer = pipeline.admit_recipient(session, reverse_path, recipient)
        reply = answer if answer is None or isinstance(answer, Reply) else await answer
        admitted.append((recipient, reply))
    return admitted


# -- what is told -----------------------------------------------------------------------------------------------------------------


def _json(
    session: Session, reverse_path: Address | None, admitted: Sequence[tuple[Address, Reply | None]], explanation: Explanation | None
) -> dict[str, Any]:
    from mailsec.smime.report import reason_json, verdict_json

    return {
        "origin": session.origin.value,
        "listener": session.listener,
        "user": session.identity.name if session.identity is not None else None,
        "reverse_path": None if reverse_path is None else str(reverse_path),
        "recipients": [{"address": str(address), "refused": None if reply is None else _reply(reply)} for address, reply in admitted],
        "steps": [
            {"name": step.name, "text": step.text, "rule": step.rule, "reason": None if step.reason is None else reason_json(step.reason)}
            for step in (explanation.steps if explanation is not None else ())
        ],
        "outcomes": [
            {
                "recipients": [str(address) for address in outcome.recipients],
                "action": outcome.decision.action,
                "need": outcome.need,
                "reply": None if outcome.decision.reply is None else _reply(outcome.decision.reply),
                "reason": outcome.decision.reason,
                "rule": outcome.rule,
                "verdict": None if outcome.verdict is None else {**verdict_json(outcome.verdict), "text": None},
            }
            for outcome in (explanation.outcomes if explanation is not None else ())
        ],
    }


def _reply(reply: Reply) -> str:
    return " ".join(part for part in (str(reply.code), reply.enhanced, reply.text) if part)


def _tell(
    output: Output,
    settings: GatewaySettings,
    session: Session,
    reverse_path: Address | None,
    admitted: Sequence[tuple[Address, Reply | None]],
    explanation: Explanation | None,
) -> None:
    from mailsec.app.telling import tell_verdict
    from mailsec.net.relay_routes import Routes
    from mailsec.smime.report import authentication_results

    who = f", user {session.identity.name}" if session.identity is not None else ""
    output.text(f"On {session.listener} ({session.origin.value}{who}):\n")
    in_mailbox = session.origin.value == "mailbox"
    if in_mailbox:
        owner = ", ".join(session.identity.addresses) if session.identity is not None else "nobody: nothing is opened"
        output.fact("mailbox of", owner, session.identity is not None)
    else:
        output.fact("MAIL FROM", f"<{reverse_path or ''}>")
    for address, reply in admitted:
        output.fact("RCPT TO", f"<{address}>: {'welcome' if reply is None else _reply(reply)}", reply is None)
    if session.identity is not None and any(reply is not None for _, reply in admitted):
        output.fact("", f"{session.identity.name} may send as {', '.join(session.identity.addresses) or 'nobody'}")
    outcomes = explanation.outcomes if explanation is not None else ()
    verdict = next((outcome.verdict for outcome in outcomes if outcome.verdict is not None), None)
    for step in explanation.steps if explanation is not None else ():
        if step.name == "verdict" and verdict is not None:
            continue  # told in full below
        rule = f'  [rule "{step.rule}"]' if step.rule else ""
        first, *more = step.text.split("; ") if step.name in ("settings", "certificate") else [step.text]
        output.fact(step.name, f"{first}{rule}", None if step.reason is None else False)
        for line in more:
            output.fact("", line)
        if step.reason is not None and step.reason.message not in step.text:
            output.fact("", step.reason.message)
        if step.reason is not None and step.reason.hint:
            output.fact("", step.reason.hint)
    if verdict is not None:
        output.text("")
        tell_verdict(output, verdict, "verdict", indent="  ")
    routes = Routes(settings.relay)
    for outcome in outcomes:
        output.text(f"\n{', '.join(map(str, outcome.recipients)) or 'the reader'}:")
        action, reply = outcome.decision.action, outcome.decision.reply
        if outcome.need:
            output.text(f"  waits for {outcome.need}")
        elif in_mailbox and action == "deliver":
            output.text("  sees it" + (" behind a notice, attached" if "enclosed" in outcome.explanation else ""))
            if outcome.verdict is not None:
                output.text(f"  with Authentication-Results: {authentication_results(outcome.verdict, settings.authserv_id)}")
            elif "sealed" in outcome.explanation:
                output.text("  as this gateway has sealed it")
        elif action == "deliver":
            hops = dict.fromkeys(str(routes.destination(address.domain)) for address in outcome.recipients)
            output.text(f"  delivered to {', '.join(hops)}")
            if outcome.verdict is not None:
                output.text(f"  with Authentication-Results: {authentication_results(outcome.verdict, settings.authserv_id)}")
        else:
            words = {"refuse": "refused", "hold": "held for `mailsec queue`", "defer": "deferred: the sender tries again"}
            told = _reply(reply) if reply is not None else outcome.decision.reason
            output.text(f"  {words.get(action, action)}{': ' + told if told else ''}")
