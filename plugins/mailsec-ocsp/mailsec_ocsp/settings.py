"""`[plugin.ocsp]`: for which authorities answers are given, who signs them, and how long they hold."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["OcspSettings"]


class OcspSettings(BaseModel):
    """Settings of the plugin."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    authorities: list[str] = Field(default_factory=list)
    """Nicknames of the authorities of the database that are answered for."""
    signers: list[str] = Field(default_factory=list)
    """Keys that sign for them ("nickname", "token:nickname", a PKCS#11 URI), each with a certificate for OCSP signing that one of the
    authorities issued. Empty: the authorities sign themselves."""
    validity: int = Field(default=24, ge=1, le=240)
    """Hours that an answer holds. It is made anew after half of them, and at once when the certificate is revoked."""
    nonce: bool = True
    """Whether a request with a nonce gets an answer of its own, signed for it. False: such requests get what everybody gets."""
    not_issued: Literal["unknown", "revoked", "unauthorized"] = "unknown"
    """What is said of a number that the authority never issued: "unknown", "revoked" (RFC 6960 §2.2), or nothing ("unauthorized")."""
    signatures_per_second: float = Field(default=50.0, gt=0, le=10_000)
    """How many answers each worker signs in a second, on average. Above that, kept answers are given while they hold, else "try later"."""
    path: str = Field(default="/", pattern=r"^/([A-Za-z0-9._~-]+/?)*$")
    """The path of the responder's address: "/ocsp" for http://ca.example.org/ocsp."""
