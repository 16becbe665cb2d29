"""`[plugin.ldap]`: which servers, how one logs in, and what is asked of them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

from ldap3.core.exceptions import LDAPExceptionError
from ldap3.operation.search import parse_filter
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mailsec.interfaces import File, SecretFile
from mailsec_ldap.places import ServerAddress

__all__ = ["LdapSettings"]

_PLACE = "{address}"


class LdapSettings(BaseModel):
    """`[plugin.ldap]`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    servers: list[str] = Field(default=[])
    """Servers, "ldap://HOST[:PORT]" or "ldaps://HOST[:PORT]", all with the same content: the next one is asked where one is out."""
    tls: Literal["starttls", "none"] = "starttls"
    """What "ldap://" does before anything else. "ldaps://" is TLS from the first octet. Certificates are verified, and name the host."""
    ca_file: File = ""
    """Anchors (PEM) for the servers' certificates; empty: those of the system."""
    bind_dn: str = ""
    """As whom to log in; empty: as nobody (anonymous)."""
    password_file: SecretFile = ""
    """The password: the first line of a file, or of a systemd credential's path. Readable by mailsec only."""
    base: str = ""
    """The entry below which people are, as "ou=people,dc=example,dc=org"; empty: the servers are not asked for people."""
    filter: str = "(mail={address})"
    """The filter (RFC 4515) that finds a correspondent by address."""
    domains: list[str] = Field(default=[])
    """Domains whose people's certificates are asked for; empty: all."""
    recipients: list[str] = Field(default=[])
    """Own domains for which the servers know who exists; who is not found there is refused at RCPT. Empty: none."""
    recipient_filter: str = "(mail={address})"
    """The filter that finds a recipient, e.g. "(|(mail={address})(proxyAddresses=smtp:{address}))"."""
    lists: bool = False
    """Fetch revocation lists from `servers`, where a certificate's "ldap:" address names one of them, or no host."""
    list_servers: list[str] = Field(default=[])
    """Hosts of others, "HOST[:PORT]", from which revocation lists may be fetched, as nobody and without TLS. Their addresses must be public."""
    timeout: float = Field(5.0, gt=0, le=9)
    """Seconds of one question to one server, connecting and logging in included."""
    connections: int = Field(4, ge=1, le=6)
    """Questions that are out at the same time."""

    @field_validator("servers")
    @classmethod
    def _servers(cls, values: list[str]) -> list[str]:
        for one in values:
            ServerAddress.of_setting(one)
        return values

    @field_validator("list_servers")
    @classmethod
    def _list_servers(cls, values: list[str]) -> list[str]:
        for one in values:
            if "://" in one:
                raise ValueError("write HOST or HOST:PORT")
            ServerAddress.of_setting(f"ldap://{one}")
        return values

    @field_validator("filter", "recipient_filter")
    @classmethod
    def _filter(cls, text: str) -> str:
        if _PLACE not in text:
            raise ValueError(f"{_PLACE} does not stand in it: it would find anybody")
        try:
            parse_filter(text.replace(_PLACE, "x"), None, False, None, None, False)
        except (LDAPExceptionError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(f"not a filter (RFC 4515): {error}") from None
        return text

    @model_validator(mode="after")
    def _fit(self) -> LdapSettings:
        if bool(self.bind_dn) != bool(self.password_file):
            # RFC 4513 §5.1.2: a name without a password is accepted by servers, and proves nothing.
            raise ValueError("bind_dn and password_file belong together")
        if (self.recipients or self.lists) and not self.servers:
            raise ValueError("recipients and lists need servers")
        if self.recipients and not self.base:
            raise ValueError("recipients need a base")
        if self.bind_dn and self.tls == "none":
            for one in map(ServerAddress.of_setting, self.servers):
                if not one.implicit_tls and not _is_here(one.host):
                    raise ValueError(f"the password would go to {one} in clear: use starttls, or ldaps://")
        return self


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
