"""The software engine as a plugin: `register_crypto_backends` for everybody who has nothing faster."""

from __future__ import annotations

from collections.abc import Iterable

from mailsec.hookspecs import hookimpl
from mailsec.interfaces import CryptoBackend
from mailsec.keys.software import SoftwareBackend

__all__ = ["SoftwarePlugin"]


class SoftwarePlugin:
    """Brings one `SoftwareBackend`."""

    @hookimpl
    def register_crypto_backends(self) -> Iterable[CryptoBackend]:
        """The engine of `cryptography`."""
        return [SoftwareBackend()]
