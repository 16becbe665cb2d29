"""The gateway put together as a worker does it, and nothing started: what plugins bring, and what they say of their settings."""

from __future__ import annotations

from mailsec.app.config import Configuration, gateway_settings
from mailsec.app.config.problems import Problem, near
from mailsec.errors import MailsecError
from mailsec.interfaces import run_now
from mailsec.store.certdb import CertDb

__all__ = ["find_rehearsal_problems"]


def find_rehearsal_problems(configuration: Configuration, database: CertDb) -> list[Problem]:
    """Names in `[[listener]] service` that no plugin brings, plugins that cannot say what they bring, and what they say cannot work."""
    wanted = [(index, listener.service) for index, listener in enumerate(configuration.listeners) if listener.service]
    if not wanted and not configuration.plugins.enabled:
        return []
    from mailsec.app.assembly import make_pipeline
    from mailsec.app.command_runtime import CommandRuntime, NoSpool

    runtime = CommandRuntime()
    try:
        plugins, pipeline = make_pipeline(configuration, gateway_settings(configuration), database, runtime, NoSpool())
        brought = [service.name for service in pipeline.services()]
        problems = run_now(plugins.problems(runtime, pipeline.settings.limits, gateway=pipeline))
    except MailsecError as error:
        return [Problem(("plugins", "enabled"), error.message, error.hint)]
    problems += [
        Problem(
            ("listener", index, "service"),
            f'no enabled plugin brings a service called "{name}"',
            near(name, brought) or "name its plugin in [plugins] enabled",
        )
        for index, name in wanted
        if name not in brought
    ]
    return problems
