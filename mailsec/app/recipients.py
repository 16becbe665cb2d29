"""`[recipients]` as a plugin: how it is known which recipients exist."""

from __future__ import annotations

from collections.abc import Iterable

from mailsec.app.config.people import Recipients
from mailsec.builtin.recipients_file import RecipientsFile
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import RecipientDirectory, Runtime
from mailsec.model.settings import GatewaySettings
from mailsec.net.next_hop_recipients import NextHopRecipients

__all__ = ["RecipientsPlugin"]


class RecipientsPlugin:
    """Brings what the section names."""

    def __init__(self, configured: Recipients) -> None:
        self._configured = configured

    @hookimpl
    def register_recipient_directories(self, settings: GatewaySettings, runtime: Runtime) -> Iterable[RecipientDirectory]:
        configured = self._configured
        if configured.check == "file":
            return [RecipientsFile(configured.file, runtime)]
        if configured.check == "next-hop":
            known, unknown = configured.remember_known, configured.remember_unknown
            return [NextHopRecipients(settings, runtime, remember_known=known, remember_unknown=unknown)]
        return []
