"""The client core for one host: TLS as configured, and the login of a smart host, read afresh so that it can be changed.

The one invariant: a password is read from its file when it is needed, and is in no setting, log or error.
"""

from __future__ import annotations

from pathlib import Path

from mailsec.errors import Unavailable
from mailsec.interfaces import ProtocolCore, Runtime
from mailsec.model.settings import GatewaySettings
from mailsec.net.relay_routes import Target
from mailsec.wire.smtp.client import ClientSettings, SmtpClient

__all__ = ["client_core"]

_PASSWORD_OCTETS = 4096


async def client_core(target: Target, tls: str, settings: GatewaySettings, runtime: Runtime, *, pipelining: bool = True) -> ProtocolCore:
    """A client for `target`; raise Unavailable where the password cannot be read (the mail waits until it can)."""
    hop, password = target.hop, b""
    if hop.password_file:
        try:
            password = await runtime.in_thread(_read, hop.password_file)
        except OSError as error:
            raise Unavailable(f"the password for {hop} cannot be read: {(error.strerror or '').lower()}", stage="login") from error
    client: ProtocolCore = SmtpClient(
        ClientSettings(
            hostname=settings.hostname,
            tls=tls,
            server_name=target.server_name,
            peer=hop.peer,
            chunking=hop.chunking,
            pipelining=pipelining,
            lmtp=hop.scheme == "lmtp",
            username=hop.username,
            password=password,
            limits=settings.limits,
        )
    )
    return client


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_PASSWORD_OCTETS).rstrip(b"\r\n")
