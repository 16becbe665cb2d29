"""`[plugin.dkim]`: whose signatures are looked at, what is signed, and with which keys."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mailsec.errors import AddressError
from mailsec.interfaces import SecretFile
from mailsec.model.address import normalise_domain
from mailsec.model.session import Origin
from mailsec_dkim.sign import Form

__all__ = ["DkimSettings", "SigningKey"]

_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*\Z")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_FIELD = re.compile(r"[!-9;-~]+\Z")
_USUAL = [
    "From", "Reply-To", "Sender", "Subject", "Date", "Message-ID", "To", "Cc", "In-Reply-To", "References", "MIME-Version", "Content-Type",
    "Content-Transfer-Encoding", "Content-Disposition", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Resent-From", "Resent-To",
    "Resent-Date", "Resent-Message-ID",
]  # fmt: skip
_ONCE = ["From", "Reply-To", "Subject", "Date", "To", "Cc", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"]
_ORIGINS = Literal["submission", "trusted", "internet", "mailbox"]


class SigningKey(BaseModel):
    """`[[plugin.dkim.sign]]`: one key of one domain."""

    model_config = ConfigDict(extra="forbid")

    domain: str = Field(description="d=: mail whose From address is in this domain, or below it, is signed.")
    selector: str = Field(description="s=: the public key is published at SELECTOR._domainkey.DOMAIN.")
    key: str = Field(default="", description='The private key: a nickname of the database, "token:nickname", or a PKCS#11 URI.')
    key_file: SecretFile = Field(
        default="", description="Or a file with it: PEM or DER, PKCS#8 or PKCS#1, without a pass phrase, readable by mailsec only."
    )

    @field_validator("domain")
    @classmethod
    def _is_a_domain(cls, value: str) -> str:
        try:
            domain = normalise_domain(value)
        except AddressError as error:
            raise ValueError(f"{value!r} is no domain: {error.message}") from None
        if not _DOMAIN.match(domain):
            raise ValueError(f"{value!r} is no domain")
        return domain

    @field_validator("selector")
    @classmethod
    def _is_a_selector(cls, value: str) -> str:
        if not _SELECTOR.match(value):
            raise ValueError(f"{value!r} is no selector: letters, digits, hyphens, and dots between them")
        return value

    @model_validator(mode="after")
    def _one_key(self) -> SigningKey:
        if bool(self.key) == bool(self.key_file):
            raise ValueError("give either key or key_file")
        return self


class DkimSettings(BaseModel):
    """`[plugin.dkim]`."""

    model_config = ConfigDict(extra="forbid")

    check: list[_ORIGINS] = Field(default=["internet"], description="Origins whose mail is verified.")
    results: bool = Field(default=True, description="Whether what was found is added as Authentication-Results, too.")
    max_signatures: int = Field(default=5, ge=1, le=50, description="Signatures of one message that are looked at.")
    dns_seconds: float = Field(
        default=5.0, gt=0, le=25, description="Seconds that a key may take to come from DNS; then it is a temperror."
    )
    sign: list[SigningKey] = Field(
        default=[], description="`[[plugin.dkim.sign]]`: keys to sign with. Several of one domain sign side by side (RSA and Ed25519)."
    )
    sign_origins: list[Literal["submission", "trusted"]] = Field(
        default=["submission", "trusted"], description="Origins whose mail is signed, where somebody is known who may use its From address."
    )
    headers: list[str] = Field(default=_USUAL, description="Fields that are signed where they are there. From always is.")
    oversign: list[str] = Field(
        default=_ONCE, description="Fields that are signed once more than they are there, so that nobody can add another one."
    )
    body: Literal["relaxed", "simple"] = Field(
        default="relaxed",
        description="How blanks in the body count. (Those in header fields never do: they are folded by whoever adds them.)",
    )
    expire_seconds: int = Field(default=0, ge=0, description="x=: seconds after which a signature is no longer good; 0: never.")

    @field_validator("headers", "oversign")
    @classmethod
    def _names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not _FIELD.match(name):
                raise ValueError(f"{name!r} is no name of a header field")
            if name.lower() in ("dkim-signature", "received", "return-path", "authentication-results"):
                # RFC 6376 §5.4.1: they change on the way
                raise ValueError(f"{name} is changed by every hop, and is never signed")
        return value

    @model_validator(mode="after")
    def _selectors_are_different(self) -> DkimSettings:
        seen: set[tuple[str, str]] = set()
        for one in self.sign:
            if (one.domain, one.selector.lower()) in seen:
                raise ValueError(f"selector {one.selector} of {one.domain} stands twice: each key has a selector of its own")
            seen.add((one.domain, one.selector.lower()))
        return self

    def checks(self, origin: Origin) -> bool:
        """True where mail of `origin` is verified."""
        return origin.value in self.check

    def form(self) -> Form:
        """How signatures are made."""
        headers = tuple(dict.fromkeys(["from", *(name.lower() for name in self.headers)]))
        return Form(headers, tuple(name.lower() for name in self.oversign), self.body == "relaxed", self.expire_seconds)

    def keys_for(self, domain: str) -> list[SigningKey]:
        """Keys for mail from an address in `domain`: those of the nearest domain that has some."""
        while domain:
            found = [one for one in self.sign if one.domain == domain]
            if found:
                return found
            domain = domain.partition(".")[2]
        return []
