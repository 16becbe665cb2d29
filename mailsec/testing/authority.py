"""Generated people: a CA, keys with certificates for addresses, a key store over them. P-256, because it is made in a millisecond.

The one invariant: nothing here outlives the process; no key is written anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from mailsec.hookspecs import hookimpl
from mailsec.interfaces import CertificateDirectory, FoundCertificate, KeyHandle, KeyStore
from mailsec.keys.software import SoftwareKey
from mailsec.model.address import Address
from mailsec.model.partner import NOTHING_AGREED, PartnerSettings
from mailsec.model.session import matches_pattern
from mailsec.model.trust import Anchor
from mailsec.pki.identity import matches
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec.x509.certificate import load_certificate
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

__all__ = ["Authority", "MemoryDirectory", "MemoryKeys", "MemoryPartners", "MemoryTrust"]


class Authority:
    """A CA of its own, that issues certificates for mail."""

    def __init__(self, name: str = "Test CA", *, at: datetime = EPOCH - timedelta(days=1), kind: str = "ec-p256") -> None:
        self.at = at
        self.random: Callable[[int], bytes] = FakeRuntime(seed=None).random
        key = make_key(kind)
        self.certificate = make_ca(common_name=name, key=key, at=at, random=self.random)
        self.issuer = IssuedBy(self.certificate, key)

    @property
    def anchor(self) -> Anchor:
        """The CA as a trust anchor for e-mail."""
        return Anchor(self.certificate)

    def issue(
        self, *addresses: str, name: str = "", kind: str = "ec-p256", days: int = 825, at: datetime | None = None, usage: str = "both"
    ) -> SoftwareKey:
        """A key with a certificate for `addresses`; it is called by the first of them unless `name` says otherwise.

        `usage`: "sign", "encrypt" or "both".
        """
        key = make_key(kind)
        certificate = self.certify(public_key_of(key), *addresses, days=days, at=at, usage=usage)
        return SoftwareKey(name or addresses[0], key, certificate=certificate, assigned=addresses)

    def certify(self, public_key: bytes, *addresses: str, days: int = 825, at: datetime | None = None, usage: str = "both") -> bytes:
        """A certificate for `addresses` and a key that is elsewhere (on a token): its SubjectPublicKeyInfo is given."""
        parsed = [Address.parse(one) for one in addresses]
        begins = at or self.at
        return issue_mail(self.issuer, addresses=parsed, public_key=public_key, at=begins, random=self.random, days=days, usage=usage)


class MemoryKeys:
    """A key store over handles at hand, and the plugin that brings it."""

    name = "memory"

    def __init__(self, *keys: KeyHandle) -> None:
        self.keys = list(keys)

    @hookimpl
    def register_key_stores(self) -> Iterable[KeyStore]:
        """Itself."""
        return [self]

    async def key(self, reference: str) -> KeyHandle | None:
        """The key called `reference`."""
        return next((key for key in self.keys if key.name == reference), None)

    async def keys_for(self, address: Address, usage: str) -> Sequence[KeyHandle]:
        """Every key that is assigned to `address`."""
        return [key for key in self.keys if any(matches_pattern(one, address) for one in key.assigned)]


class MemoryDirectory:
    """A certificate directory over what it was given, and the plugin that brings it. `out` is raised by every look-up while it is set."""

    def __init__(self, *found: FoundCertificate, name: str = "memory", local: bool = True) -> None:
        self.name = name
        self.local = local
        self.found = list(found)
        self.out: Exception | None = None
        self.asked: list[Address] = []

    @classmethod
    def of(cls, *keys: SoftwareKey, **changes: Any) -> MemoryDirectory:
        """The certificates of these people."""
        return cls(*(FoundCertificate(key.certificate, "memory") for key in keys if key.certificate is not None), **changes)

    @hookimpl
    def register_certificate_directories(self) -> Iterable[CertificateDirectory]:
        """Itself."""
        return [self]

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]:
        """Every certificate that names `address`, and every one that is bound."""
        self.asked.append(address)
        if self.out is not None:
            raise self.out
        return [one for one in self.found if one.bound or matches(load_certificate(one.der), address)]


class MemoryPartners:
    """What is agreed with correspondents, by address."""

    def __init__(self, **agreed: PartnerSettings) -> None:
        self.agreed_with: dict[str, PartnerSettings] = dict(agreed)

    async def agreed(self, address: Address) -> PartnerSettings:
        """The settings of the address; none where it was not named."""
        return self.agreed_with.get(address.key, NOTHING_AGREED)


class MemoryTrust:
    """A trust store that holds the anchors that it was given."""

    def __init__(self, *anchors: Anchor, authorities: Sequence[bytes] = ()) -> None:
        self._anchors = anchors
        self._authorities = tuple(authorities)
        self._distrusted: tuple[bytes, ...] = ()

    async def anchors(self, purpose: str = "email") -> Sequence[Anchor]:
        """Those whose purposes hold `purpose`."""
        return self._anchors

    async def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """None."""
        return self._distrusted

    async def authorities(self) -> Sequence[bytes]:
        """Those that it was given."""
        return self._authorities
