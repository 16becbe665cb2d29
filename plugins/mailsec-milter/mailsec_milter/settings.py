"""`[plugin.milter]`: who may speak to us, and whom the MTA's word is taken for."""

from __future__ import annotations

import ipaddress
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mailsec.errors import AddressError
from mailsec.model.address import Address, normalise_domain

__all__ = ["MilterSettings"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class MilterSettings(BaseModel):
    """`[plugin.milter]`."""

    model_config = ConfigDict(extra="forbid")

    peers: list[str] = Field(
        default=["127.0.0.0/8", "::1"],
        description="Networks of the MTAs that may speak to the milter. What they say of a login is believed: whoever connects from there can"
        " have mail signed. A unix socket is for whoever may open it.",
    )
    origin: Literal["macros", "internet", "trusted"] = Field(
        default="macros",
        description="""\
What a message is. "macros": "submission" where its client has logged in at the MTA ({auth_authen}), "trusted" where it came in by a port
of `trusted_daemons`, else "internet". "internet": everything is verified, nothing signed. "trusted": everything comes from people whom the
MTA has checked.""",
    )
    trusted_daemons: list[str] = Field(
        default=[],
        description="Names of ports ({daemon_name}; Postfix: milter_macro_daemon_name) whose clients the MTA has checked otherwise, as mynetworks."
        " Never the MTA's own name: Postfix calls each port so that has no other.",
    )
    senders: list[str] = Field(
        default=[],
        description='"trusted": MAIL FROM addresses that may be used: name@domain, @domain, @.domain (all below it).',
    )
    login_domains: list[str] = Field(
        default=[],
        description="For logins that are no users of mailsec (`mailsec user`): one without @ is an address in the first of these domains; one"
        " with it is that address, if its domain is one of them.",
    )
    logins: dict[str, list[str]] = Field(
        default={},
        description="Addresses that a login may use (as in `senders`), whatever `mailsec user` and `login_domains` say of it.",
    )
    progress_seconds: float = Field(
        default=20.0,
        gt=0,
        le=120,
        description="Seconds after which the MTA is told that we are still at work, again and again. (Postfix waits 300: milter_content_timeout.)",
    )
    give_up_seconds: float = Field(
        default=240.0,
        gt=0,
        description="Seconds after which the client is told to come back: what a token, a directory or a responder takes longer for.",
    )

    @field_validator("peers")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for one in value:
            ipaddress.ip_network(one)
        return value

    @field_validator("senders")
    @classmethod
    def _patterns(cls, value: list[str]) -> list[str]:
        return [_pattern(one) for one in value]

    @field_validator("logins")
    @classmethod
    def _logins(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        return {login: [_pattern(one) for one in patterns] for login, patterns in value.items()}

    @model_validator(mode="after")
    def _trusted_for_somebody(self) -> MilterSettings:
        if (self.origin == "trusted" or self.trusted_daemons) and not self.senders:
            raise ValueError("trusted needs senders: the addresses that the MTA's checked clients may use")
        return self

    def networks(self) -> tuple[Network, ...]:
        """`peers` as networks."""
        return tuple(map(ipaddress.ip_network, self.peers))

    def welcomes(self, peer: str) -> bool:
        """True where an MTA may connect from `peer` ("192.0.2.1", "unix:PATH")."""
        if peer.startswith("unix:"):
            return True
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        return any(address.version == network.version and address in network for network in self.networks())

    def addresses_of(self, login: str) -> tuple[str, ...]:
        """The addresses that whoever logged in as `login` may use; none where that is not known."""
        if login in self.logins:
            return tuple(self.logins[login])
        if not self.login_domains:
            return ()
        try:
            address = Address.parse(login if "@" in login else f"{login}@{self.login_domains[0]}")
        except AddressError:
            return ()
        return (str(address),) if address.domain_key in {normalise_domain(one) for one in self.login_domains} else ()


def _pattern(text: str) -> str:
    """A pattern of `model.session.matches_pattern`; one that means nobody is a mistake."""
    if text == "*":
        raise ValueError('"*" means everybody: name domains ("@example.org")')
    if not text.startswith("@"):
        try:
            Address.parse(text)
        except AddressError as error:
            raise ValueError(f"{text!r} is neither an address nor @domain: {error.message}") from None
    elif len(text.lstrip("@.")) == 0:
        raise ValueError(f"{text!r} names no domain")
    return text
