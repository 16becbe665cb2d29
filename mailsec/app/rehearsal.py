"""Whether the services that listeners name are ones that enabled plugins bring. Plugins are asked as the gateway asks them; nothing is started."""

from __future__ import annotations

from mailsec.app.config import Configuration, gateway_settings
from mailsec.app.config.problems import Problem, near
from mailsec.errors import MailsecError
from mailsec.store.certdb import CertDb

__all__ = ["find_service_problems"]


def find_service_problems(configuration: Configuration, database: CertDb) -> list[Problem]:
    """Names in `[[listener]] service` that no plugin brings, and plugins that cannot say what they bring."""
    wanted = [(index, listener.service) for index, listener in enumerate(configuration.listeners) if listener.service]
    if not wanted:
        return []
    from mailsec.app.assembly import make_pipeline
    from mailsec.app.command_runtime import CommandRuntime, NoSpool

    try:
        _, pipeline = make_pipeline(configuration, gateway_settings(configuration), database, CommandRuntime(), NoSpool())
        brought = [service.name for service in pipeline.services()]
    except MailsecError as error:
        return [Problem(("plugins", "enabled"), error.message, error.hint)]
    return [
        Problem(
            ("listener", index, "service"),
            f'no enabled plugin brings a service called "{name}"',
            near(name, brought) or "name its plugin in [plugins] enabled",
        )
        for index, name in wanted
        if name not in brought
    ]
