"""`[plugin.accel]`: which modules compute, what, and how far they are believed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["AccelSettings", "ModuleSettings"]


class ModuleSettings(BaseModel):
    """One token of a `[[module]]`; earlier ones are asked first."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    module: str
    """The name of a `[[module]]`."""
    token: str = Field(min_length=1)
    """The label of its token. No PIN is needed: only public keys are used."""
    mechanisms: list[Literal["rsa", "ecdsa"]] = Field(default=["rsa"])
    """What it computes: "rsa" (RSA PKCS#1 v1.5, checked by us each time), "ecdsa" (its yes is believed)."""
    enabled: bool = True


class AccelSettings(BaseModel):
    """Settings of the plugin."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    modules: list[ModuleSettings] = Field(default_factory=list)
    """Tokens that compute, the first that can is asked."""
    deadline: float = Field(default=0.05, gt=0, le=1)
    """Seconds that an answer is waited for; a worker does nothing else meanwhile."""
    retry: float = Field(default=60.0, ge=1)
    """Seconds after a failure until a module is tested again; twice as many after each further one, an hour at most."""
    confirm: int = Field(default=8, ge=1)
    """One in so many ECDSA signatures that a module calls right is checked in software as well; 1: every one."""
