"""What a certificate is asked to be good for, and which usages, anchors and rules go with it.

One table; the words are those of `mailsec cert verify --purpose`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mailsec.x509.keys import KeyFacts

__all__ = ["PURPOSES", "Purpose"]

_SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
_CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
EMAIL_PROTECTION: Final = "1.3.6.1.5.5.7.3.4"
OCSP_SIGNING: Final = "1.3.6.1.5.5.7.3.9"


@dataclass(frozen=True, slots=True)
class Purpose:
    """One purpose. Sets that are empty ask for nothing."""

    name: str
    extended_key_usage: str = ""
    """The KeyPurposeId that extendedKeyUsage must hold where it is present."""
    any_extended_key_usage: bool = True
    """True where anyExtendedKeyUsage is as good."""
    must_have_extended_key_usage: bool = False
    key_usage: frozenset[str] = frozenset()
    """Where keyUsage is present, one of these must be in it."""
    anchor: str = ""
    """What an anchor must be for (`Anchor.purposes`); "" for every anchor."""
    profiled: bool = False
    """True where certificates that break the profile of RFC 5280 §4.2 are refused, beyond what §6.1 checks.

    TLS authorities keep to it. In e-mail, certificates that a holder made with simple tools are common, and harmless.
    """

    def usages(self, key: KeyFacts) -> frozenset[str]:
        """The KeyUsage bits of which one must be there for a key of this type."""
        if self.name != "email-encrypt":
            return self.key_usage
        # RFC 8550 §4.4.2, RFC 5480 §3, RFC 8410 §5: RSA and KEM keys encipher keys, the others agree on one.
        return frozenset({"keyAgreement"}) if key.type.startswith(("ec:", "x25519", "x448")) else frozenset({"keyEncipherment"})


_SIGNS: Final = frozenset({"digitalSignature", "nonRepudiation"})

PURPOSES: Final[Mapping[str, Purpose]] = {
    purpose.name: purpose
    for purpose in (
        # RFC 8550 §4.4.2: digitalSignature or nonRepudiation; §4.4.4: emailProtection or anyExtendedKeyUsage.
        Purpose("email-sign", EMAIL_PROTECTION, key_usage=_SIGNS, anchor="email"),
        Purpose("email-encrypt", EMAIL_PROTECTION, key_usage=frozenset({"keyEncipherment", "keyAgreement"}), anchor="email"),
        # RFC 5280 §4.2.1.12; any of the three bits, by the key exchange.
        Purpose(
            "tls-server",
            _SERVER_AUTH,
            any_extended_key_usage=False,
            key_usage=frozenset({"digitalSignature", "keyEncipherment", "keyAgreement"}),
            anchor="tls-server",
            profiled=True,
        ),
        Purpose(
            "tls-client",
            _CLIENT_AUTH,
            any_extended_key_usage=False,
            key_usage=frozenset({"digitalSignature", "keyAgreement"}),
            anchor="tls-client",
            profiled=True,
        ),
        # RFC 6960 §4.2.2.2: the delegation is explicit: anyExtendedKeyUsage and an absent extension do not do.
        Purpose("ocsp", OCSP_SIGNING, any_extended_key_usage=False, must_have_extended_key_usage=True, key_usage=_SIGNS),
        # RFC 5280 §6.3.3 (f): cRLSign where keyUsage is present.
        Purpose("crl", key_usage=frozenset({"cRLSign"})),
        Purpose("any"),
    )
}
"""Every purpose by its name."""
