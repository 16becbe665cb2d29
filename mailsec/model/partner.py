"""What is agreed with a correspondent: settings of an address, before those of its domain, before the default.

They live in the database (`mailsec partner set`); rules decide first, and a partner's settings say what the rules leave open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["NOTHING_AGREED", "PARTNER_SETTINGS", "PartnerSettings"]

PARTNER_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "sign": ("required", "if-possible", "never"),
    "encrypt": ("required", "if-possible", "never"),
    "form": ("detached", "opaque"),
    "wrap": ("sign", "triple"),
    "compress": ("yes", "no"),
    "header-protection": ("no", "sign", "baseline", "shy"),
    "encrypt-to-sender": ("yes", "no"),
    "hold": ("yes", "no"),
    "profile": (),
}
"""Every setting with the words that it takes (`profile`: the names of `algorithms.profiles`)."""


@dataclass(frozen=True, slots=True)
class PartnerSettings:
    """The settings in force for one recipient, and which level gave each value. An empty string: nobody said."""

    sign: str = ""
    encrypt: str = ""
    """ "required", "if-possible" or "never"."""
    form: str = ""
    """ "detached" or "opaque"."""
    wrap: str = ""
    """ "sign": signed, then encrypted; "triple": signed once more around that (RFC 2634 §1.1)."""
    compress: str = ""
    header_protection: str = ""
    """ "no"; "sign" (RFC 9788 with hcp_no_confidentiality), "baseline" (hcp_baseline), "shy" (hcp_shy)."""
    encrypt_to_sender: str = ""
    hold: str = ""
    """ "yes": what cannot be done is held for a person, not refused."""
    profile: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)
    """Setting to the level that gave it: "bob@example.net", "@example.net" or "default"."""


NOTHING_AGREED = PartnerSettings()
