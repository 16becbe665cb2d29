"""The directory "smimea": what DNS says about an address, where DNSSEC vouches for it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mailsec.errors import Unavailable
from mailsec.interfaces import DnsAnswer, FoundCertificate, Runtime
from mailsec.model.address import Address
from mailsec_smimea.names import owner_names
from mailsec_smimea.records import certificates_of, read_records

__all__ = ["SmimeaDirectory", "SmimeaSettings"]


class SmimeaSettings(BaseModel):
    """`[plugin.smimea]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    resolver: str = ""
    """A validating resolver, "ADDRESS" or "ADDRESS:PORT"; empty: those of this machine, which are believed on loopback only."""
    binding: bool = True
    """Usage 3 binds a certificate to its address by itself. False: it needs a path to an anchor, as every other."""
    timeout: float = Field(5.0, gt=0, le=9)
    """Seconds of one look-up."""

    @field_validator("resolver")
    @classmethod
    def _is_address(cls, text: str) -> str:
        host, colon, port = text.rpartition(":")
        if not colon or (":" in host and not host.startswith("[")):
            host, port = text, "53"
        if text:
            try:
                ip_address(host.removeprefix("[").removesuffix("]"))
                if not 0 < int(port) < 65536:
                    raise ValueError
            except ValueError:
                raise ValueError("write ADDRESS, ADDRESS:PORT or [V6]:PORT, with a number in place of a name") from None
        return text


class SmimeaDirectory:
    """A `CertificateDirectory`."""

    name = "smimea"
    local = False

    def __init__(self, settings: SmimeaSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]:
        """Certificates of `address`; those without DNSSEC with the reason why they are not used. Raise Unavailable where DNS does not answer."""
        for owner in owner_names(address):
            answer = await self._look_up(owner)
            if answer.records:
                records = read_records(answer.records)
                return certificates_of(records, owner, authentic=answer.authentic, binding=self._settings.binding)
        return ()

    async def _look_up(self, owner: str) -> DnsAnswer:
        asking = self._runtime.look_up(owner, "SMIMEA", resolver=self._settings.resolver)
        try:
            return await self._runtime.within(self._settings.timeout, asking)
        except TimeoutError:
            # Attack: name servers that hang. It is their domain that waits, not this directory.
            raise Unavailable(f"DNS does not answer in time for {owner}", stage="dns") from None
