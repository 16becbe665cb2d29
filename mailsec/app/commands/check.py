"""`mailsec check`: every mistake in a configuration and around it; nothing is bound or started."""

from __future__ import annotations

import click

from mailsec.app.options import config_option
from mailsec.app.output import Output, json_option, plural

__all__ = ["check"]


@json_option
@click.command()
@config_option
@click.option("--login", is_flag=True, help="Log in to tokens, too, where no running mailsec holds them.")
@click.pass_obj
def check(output: Output, configuration: str, login: bool) -> None:
    """Find every mistake in the configuration, and in the files, certificates and plugins that it names."""
    from datetime import UTC, datetime

    from mailsec.app.config.evidence import revocation_notes
    from mailsec.app.config.people import people_notes
    from mailsec.app.config.server_certificates import doubts
    from mailsec.app.config.tls import tls_notes
    from mailsec.app.modules import modules_in_use
    from mailsec.app.opening import open_configuration

    found, database = open_configuration(configuration, consequence="nothing was changed")
    with database:
        users = sum(1 for user in database.users() if not user.disabled)
        keys = sum(1 for entry in database.entries() if entry.has_key)
        doubtful = doubts(found, database, datetime.now(UTC))
        modules = modules_in_use(found.modules, database)
    others = any(one.kind != "database" for one in found.authenticators)
    if not users and not others and any(listener.origin == "submission" for listener in found.listeners):
        output.warning("nobody can submit mail: the database has no user", f"mailsec user add -c {configuration} NAME --address ADDRESS")
    notes = [
        *revocation_notes(found.revocation),
        *people_notes(found.authenticators, found.gateway.domains),
        *tls_notes(found.tls, found.listeners, found.relay),
    ]
    for note in notes:
        output.warning(note)
    for doubt in dict.fromkeys((one.message, one.hint) for one in doubtful):
        output.warning(*doubt)
        notes.append(doubt[0])
    if modules:
        from mailsec.app.token_state import token_doubts

        for message, hint in token_doubts(found, modules, login=login):
            output.warning(message, hint)
            notes.append(message)
    listeners = [f"{listener.service or listener.origin} on {listener.address}" for listener in found.listeners]
    output.result(
        {"valid": True, "configuration": configuration, "listeners": listeners, "users": users, "keys": keys, "notes": notes},
        f"{configuration} is fine: {', '.join(listeners)}; {plural(len(found.rules), 'rule')}, {plural(keys, 'key')}, {plural(users, 'user')}",
    )
