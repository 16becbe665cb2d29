"""The plugin "smimea": what it registers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

from mailsec.hookspecs import hookimpl
from mailsec.interfaces import CertificateDirectory, Runtime
from mailsec.model.settings import GatewaySettings
from mailsec_smimea.directory import SmimeaDirectory, SmimeaSettings

__all__ = ["SmimeaPlugin"]


class SmimeaPlugin:
    """What the entry point names."""

    @hookimpl
    def register_config_models(self) -> Mapping[str, type]:
        return {"smimea": SmimeaSettings}

    @hookimpl
    def register_commands(self, cli: click.Group) -> None:
        from mailsec_smimea.command import smimea

        cli.add_command(smimea)

    @hookimpl
    def register_certificate_directories(self, settings: GatewaySettings, runtime: Runtime) -> Iterable[CertificateDirectory]:
        chosen = settings.plugins["smimea"]
        assert isinstance(chosen, SmimeaSettings)
        return [SmimeaDirectory(chosen, runtime)]
