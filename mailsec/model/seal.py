"""A key with which the gateway seals what it delivers, so that it knows it again when it comes out of a mailbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

__all__ = ["SealKey"]


@dataclass(frozen=True, slots=True)
class SealKey:
    """One key. Its `repr` does not show it."""

    id: str
    """16 hexadecimal digits."""
    secret: bytes = field(repr=False)
    created_at: datetime
    retires_at: datetime
    """From then on nothing that it sealed is believed."""
