"""Which certificates a client is shown for the name that it asks for (RFC 6066 §3).

The one invariant: a name decides only among certificates that hold it; octets that are no host name are the same as an unknown name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailsec.net.tls_context import OwnCertificate

__all__ = ["Choice", "choices"]

_HOST_NAME = re.compile(rb"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\Z")

Shown = tuple[OwnCertificate, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Names and what is shown for them: for each kind of key the first certificate that has the name."""

    default: Shown
    exact: dict[str, Shown] = field(default_factory=dict)
    wildcards: dict[str, Shown] = field(default_factory=dict)
    """By what stands behind the first dot."""

    @property
    def sets(self) -> Sequence[Shown]:
        """Everything that may be shown together, each once."""
        return list(dict.fromkeys((self.default, *self.exact.values(), *self.wildcards.values())))

    def named(self, name: bytes) -> Shown | None:
        """What is shown to a client that asks for `name`; None where no certificate has it, or it is no name."""
        name = name.lower().removesuffix(b".")
        if len(name) > 253 or not _HOST_NAME.match(name):
            return None
        text = name.decode("ascii")
        # RFC 9525 §6.3: a wildcard stands for exactly one label.
        return self.exact.get(text) or self.wildcards.get(text.partition(".")[2])


def choices(certificates: Sequence[OwnCertificate]) -> Choice:
    """The choice among `certificates`, in the order of the configuration; the first decides what is shown to who asks for nothing known."""
    names: dict[str, list[OwnCertificate]] = {}
    for own in certificates:
        for name in dict.fromkeys(one.lower() for one in own.certificate.dns_names):
            names.setdefault(name, []).append(own)
    first = certificates[0]
    shared = {name for name, holders in names.items() if first in holders}
    beside = [own for own in certificates if own is first or shared & {one.lower() for one in own.certificate.dns_names}]
    exact, wildcards = {}, {}
    for name, holders in names.items():
        if name.startswith("*."):
            wildcards[name[2:]] = _one_a_kind(holders)
        else:
            exact[name] = _one_a_kind(holders)
    return Choice(_one_a_kind(beside), exact, wildcards)


def _one_a_kind(certificates: Sequence[OwnCertificate]) -> Shown:
    kinds: dict[str, OwnCertificate] = {}
    for own in certificates:
        kinds.setdefault(own.certificate.key.type.partition(":")[0], own)
    return tuple(kinds.values())
