"""What the gateway does for plugins besides mail: certificates, people, keys, registers, tokens. The half of `interfaces.Gateway` without messages.

The one invariant: everything here answers from what the gateway itself decides by; a plugin cannot learn of a certificate or an identity
that mail would not be given, and gets no private key, only handles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailsec.errors import KeyUnavailable, MailsecError, Unavailable
from mailsec.gateway.admission import Admission
from mailsec.gateway.correspondents import Correspondent
from mailsec.gateway.tools import Tools
from mailsec.interfaces import PEER, Authenticator, CertificateDirectory, Credentials, FoundCertificate, KeyHandle, TokenHost
from mailsec.model.address import Address
from mailsec.model.session import Identity, Origin, Session
from mailsec.model.trust import IssuedCertificate
from mailsec.model.verdict import Event

__all__ = ["Registers", "Services", "Surroundings"]


class Registers(Protocol):
    """The registers of our own authorities: the database."""

    async def authority(self, ca: str) -> Sequence[bytes]: ...

    async def issued(self, ca: str) -> Sequence[IssuedCertificate]: ...

    async def issued_as(self, ca: str, serial: int) -> IssuedCertificate | None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around the gateway, and only `app` can reach."""

    registers: Registers | None = None
    token: Callable[[str], TokenHost] | None = None


class Services:
    """`gateway.pipeline.Pipeline` is one."""

    _tools: Tools
    _surroundings: Surroundings
    admission: Admission
    authenticators: tuple[Authenticator, ...]
    directories: tuple[CertificateDirectory, ...]

    def record(self, event: Event) -> None:
        """Tell everybody who records events."""
        self._tools.plugins.record(event)

    async def correspondent(self, address: Address, *, everywhere: bool = True) -> Correspondent:
        """Which certificates `address` would be encrypted for, and why not each other one. `everywhere`: directories elsewhere are asked, too."""
        return await self._tools.correspondents.find(address, everywhere=everywhere)

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]:
        """What all certificate directories know of `address`, in their order; one that is out is passed over."""
        found: list[FoundCertificate] = []
        for directory in self.directories:
            try:
                found += await directory.certificates(address)
            except MailsecError as error:
                if not error.temporary:
                    raise
        return found

    async def usable_certificates(self, address: Address) -> Sequence[bytes]:
        """What would be encrypted to. Raise Unavailable where a directory, or evidence, is out that could decide it."""
        found = await self.correspondent(address)
        if found.chosen:
            return tuple(one.found.der for one in found.chosen)
        if found.wait:
            why = (
                found.missing.message if found.missing is not None else f"it cannot be said now whether there is a certificate of {address}"
            )
            raise Unavailable(why, hint=f"`mailsec cert find {address} --explain` tells more", stage=found.wait)
        return ()

    def may_send(self, identity: Identity, address: Address) -> bool:
        """True where `identity` may use `address`."""
        return identity.may_use(address)

    async def identity(self, login: str) -> Identity | None:
        """Who that is, as the first authenticator says who knows. Raise MailsecError where one cannot say and none knows."""
        session = Session(id="", listener="", origin=Origin.TRUSTED, peer="")
        doubt: MailsecError | None = None
        for authenticator in self.authenticators:
            if PEER in authenticator.mechanisms:
                try:
                    identity = await authenticator.authenticate(Credentials(PEER, login, b""), session)
                except MailsecError as error:
                    doubt = doubt or error
                    continue
                if identity is not None:
                    return identity
        if doubt is not None:
            raise doubt
        return None

    async def recipient_exists(self, address: Address) -> bool | None:
        """What the recipient directories say."""
        return await self.admission.recipient_exists(address)

    async def key(self, name: str) -> KeyHandle | None:
        """The key that a key store calls `name`."""
        return await self._tools.keys.key(name)

    async def authority(self, ca: str) -> Sequence[bytes]:
        """Certificates of our own authority called `ca`."""
        return await self._registers.authority(ca)

    async def issued(self, ca: str) -> Sequence[IssuedCertificate]:
        """Its register."""
        return await self._registers.issued(ca)

    async def issued_as(self, ca: str, serial: int) -> IssuedCertificate | None:
        """One entry of it."""
        return await self._registers.issued_as(ca, serial)

    def token(self, module: str) -> TokenHost:
        """The PKCS#11 module of that name."""
        if self._surroundings.token is None:
            raise KeyUnavailable(f"there is no module called {module!r} here", hint="a running gateway has those of [[module]]")
        return self._surroundings.token(module)

    @property
    def _registers(self) -> Registers:
        if self._surroundings.registers is None:
            raise KeyUnavailable("there are no authorities here", hint="a running gateway has those of its database")
        return self._surroundings.registers
