"""The variables of mod_nss over a TLS session, by their names: `SSL_PROTOCOL`, `SSL_CLIENT_S_DN_O`, `REMOTE_ADDR` and the others.

The one invariant: what a variable says of a certificate is what stands in it; whether it was accepted says `SSL_CLIENT_VERIFY` alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from mailsec.model.session import TlsInfo
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec.x509.names import Name, decode

__all__ = ["NAMES", "SessionFacts", "is_variable"]

_ATTRIBUTES: Final[Mapping[str, bytes]] = {
    "C": b"\x55\x04\x06",
    "ST": b"\x55\x04\x08",
    "L": b"\x55\x04\x07",
    "O": b"\x55\x04\x0a",
    "OU": b"\x55\x04\x0b",
    "CN": b"\x55\x04\x03",
    "UID": b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01",
    "Email": b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01",
}
_DNS, _ADDRESS, _IP = 2, 1, 7
"""GeneralName tags (RFC 5280 §4.2.1.6): dNSName, rfc822Name, iPAddress."""
_OF_CERTIFICATE = re.compile(
    r"SSL_(CLIENT|SERVER)_(?:(M_VERSION|M_SERIAL|V_START|V_END|V_REMAIN|A_SIG|A_KEY|CERT)"
    r"|(S_DN|I_DN)(?:_(C|ST|L|O|OU|CN|UID|Email))?(?:_([0-9]))?|SAN_(Email|DNS|IPaddr)_([0-9]{1,2}))\Z"
)

_PLAIN: Final[Mapping[str, Callable[[SessionFacts], str]]] = {
    "HTTPS": lambda facts: "on" if facts.tls else "off",
    "SSL_PROTOCOL": lambda facts: facts.tls.version if facts.tls else "",
    "SSL_CIPHER": lambda facts: facts.tls.cipher if facts.tls else "",
    "SSL_CIPHER_NAME": lambda facts: facts.tls.cipher if facts.tls else "",
    "SSL_CIPHER_EXPORT": lambda facts: "false" if facts.tls else "",
    "SSL_CIPHER_USEKEYSIZE": lambda facts: str(facts.tls.cipher_bits) if facts.tls else "",
    "SSL_CIPHER_ALGKEYSIZE": lambda facts: str(facts.tls.cipher_bits) if facts.tls else "",
    "SSL_GROUP": lambda facts: facts.tls.group if facts.tls else "",
    "SSL_SESSION_RESUMED": lambda facts: ("Resumed" if facts.tls.resumed else "Initial") if facts.tls else "",
    "SSL_TLS_SNI": lambda facts: facts.tls.server_name if facts.tls else "",
    "SSL_SECURE_RENEG": lambda facts: "true" if facts.tls else "",
    "SSL_CLIENT_VERIFY": lambda facts: facts.verified(),
    "REMOTE_ADDR": lambda facts: facts.peer,
    "REMOTE_USER": lambda facts: facts.user,
    "SERVER_NAME": lambda facts: facts.hostname,
    "TIME": lambda facts: f"{facts.at:%Y%m%d%H%M%S}" if facts.at else "",
    **{
        f"TIME_{name}": lambda facts, form=form: facts.at.strftime(form) if facts.at else ""  # type: ignore[misc]  # bound now
        for name, form in {"YEAR": "%Y", "MON": "%m", "DAY": "%d", "HOUR": "%H", "MIN": "%M", "SEC": "%S", "WDAY": "%w"}.items()
    },
}

NAMES: Final[tuple[str, ...]] = (*_PLAIN, *(f"SSL_{side}_{what}" for side in ("CLIENT", "SERVER") for what in (
    "M_VERSION", "M_SERIAL", "V_START", "V_END", "V_REMAIN", "S_DN", "I_DN", "A_SIG", "A_KEY", "CERT", "SAN_Email_0", "SAN_DNS_0", "SAN_IPaddr_0",
)))  # fmt: skip
"""Every variable; those of names have their attributes besides (`SSL_CLIENT_S_DN_CN`), those of alternative names their numbers."""


def is_variable(name: str) -> bool:
    """True for the name of a variable."""
    return name in _PLAIN or _OF_CERTIFICATE.match(name) is not None


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What is known of one session; call it with the name of a variable."""

    tls: TlsInfo | None = None
    peer: str = ""
    user: str = ""
    hostname: str = ""
    at: datetime | None = None
    """The instant of the message, in UTC."""

    def __call__(self, name: str) -> str:
        plain = _PLAIN.get(name)
        if plain is not None:
            return plain(self)
        found = _OF_CERTIFICATE.match(name)
        if found is None or self.tls is None:
            return ""
        der = self.tls.peer_certificate if found[1] == "CLIENT" else self.tls.own_certificate
        return "" if der is None else self._of(load_certificate(der), found)

    def verified(self) -> str:
        """NONE, SUCCESS or FAILED, as SSL_CLIENT_VERIFY has it."""
        if self.tls is None or self.tls.peer_certificate is None:
            return "NONE"
        return "SUCCESS" if self.tls.peer_verified else "FAILED"

    def _of(self, certificate: Certificate, found: re.Match[str]) -> str:
        _, what, name, attribute, number, kind, index = found.groups()
        if name:
            return _name(certificate.subject if name == "S_DN" else certificate.issuer, attribute, int(number or 0))
        if kind:
            names = _alternative(certificate, kind)
            return names[int(index)] if int(index) < len(names) else ""
        if what == "V_REMAIN":
            if certificate.not_after is None or self.at is None:
                return ""
            return str(max(0, (certificate.not_after - self.at).days))
        return _plain_field(certificate, what)


def _plain_field(certificate: Certificate, what: str) -> str:
    if what == "CERT":
        text = base64.encodebytes(certificate.der).decode("ascii")
        return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
    instant = {"V_START": certificate.not_before, "V_END": certificate.not_after}.get(what)
    if instant is not None:
        return f"{instant:%b %d %H:%M:%S %Y} GMT"
    return {
        "M_VERSION": str(certificate.version),
        "M_SERIAL": f"{certificate.serial:X}",
        "A_SIG": certificate.signature_algorithm.hex(),
        "A_KEY": certificate.key_type,
    }.get(what, "")


def _name(name: Name, attribute: str | None, number: int) -> str:
    if attribute is None:
        return name.text
    values = name.values(_ATTRIBUTES[attribute])
    return decode(*values[number]) if number < len(values) else ""


def _alternative(certificate: Certificate, kind: str) -> list[str]:
    wanted = {"Email": _ADDRESS, "DNS": _DNS, "IPaddr": _IP}[kind]
    found = []
    for tag, value in certificate.alternative_names or ():
        if tag != wanted:
            continue
        if tag != _IP:
            found.append(value.decode("latin-1"))
        elif len(value) in (4, 16):
            found.append(str(ip_address(value)))
    return found
