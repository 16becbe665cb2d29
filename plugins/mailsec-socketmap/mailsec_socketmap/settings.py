"""`[plugin.socketmap]`: what is said, and for whom."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["SocketmapSettings"]


class SocketmapSettings(BaseModel):
    """Settings of the plugin."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    certificate: str = "OK"
    """What the map "certificate" says of an address that mail can be encrypted for: "OK", "FILTER smtp:[127.0.0.1]:10025", "smtp:[…]:25"."""
    recipient: str = "OK"
    """What the map "recipient" says of an address that exists."""
    wrong_sender: str = "REJECT 5.7.1 you may not send with this address"
    """The action for a user who may not use the address in MAIL FROM."""
    require_certificate: list[str] = Field(default_factory=list)
    """Recipients who must have a certificate: "name@domain", "@domain", "@.domain" (all below it), "*"."""
    no_certificate: str = "REJECT 5.7.1 there is no certificate to encrypt for this recipient"
    """The action for such a recipient who has none."""

    @field_validator("certificate", "recipient", "wrong_sender", "no_certificate")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if not text or not text.isprintable() or len(text) > 500:
            raise ValueError("must be one line of at most 500 printable characters")
        return text
