"""Keys from all key stores: who may sign for an address, and what a key is called (promise 8).

The one invariant: a key is offered for an address only where it is assigned to it. A store that answers with another's key is not believed.
Stores keep their own caches and return without suspending where they can; nothing is kept here, so a key that was taken away is gone at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from mailsec.errors import KeyUnavailable
from mailsec.gateway.audit import Audit
from mailsec.interfaces import KeyHandle, KeyStore
from mailsec.model.address import Address
from mailsec.model.verdict import Reason
from mailsec.rules.conditions import Addresses

__all__ = ["NO_SIGNERS", "KeyRing", "Openers", "Signers"]


@dataclass(frozen=True, slots=True)
class Signers:
    """The keys that may sign for one address, by name, best first."""

    handles: Mapping[str, KeyHandle] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    missing: tuple[Reason, ...] = ()
    wait: str = ""
    """What a further key waits for, where there is none at hand."""


NO_SIGNERS = Signers()


@dataclass(frozen=True, slots=True)
class Openers:
    """Recipients for whom the same keys may open a message."""

    recipients: tuple[Address, ...]
    keys: tuple[KeyHandle, ...] = ()
    wait: str = ""
    """What a further key of theirs waits for, where a store is out: what none of `keys` opens waits for it, too."""


class KeyRing:
    """All key stores, in the order of the plugins."""

    def __init__(self, stores: Sequence[KeyStore] = (), audit: Audit | None = None) -> None:
        self.stores = tuple(stores)
        self._audit = audit

    async def signers(self, sender: Address) -> Signers:
        """Keys that may sign for `sender`; a store that is out becomes something to wait for, not an error."""
        handles: dict[str, KeyHandle] = {}
        missing: list[Reason] = []
        wait = ""
        for store in self.stores:
            try:
                for handle in await store.keys_for(sender, "sign"):
                    if _belongs(handle.assigned, sender) and handle.name not in handles:
                        handles[handle.name] = self._audited(handle, store, sender)
            except KeyUnavailable as error:
                wait = wait or need_of(error, store.name)
                missing.append(Reason("key-unavailable", "policy", error.message, hint=error.hint))
        if not handles and not wait:
            missing.append(_no_key(sender))
        return Signers(handles, tuple(handles), tuple(missing), wait)

    async def keys_to_open(self, recipients: Sequence[Address]) -> tuple[list[KeyHandle], KeyUnavailable | None]:
        """Keys that may open mail for each of `recipients` (a key that only one of several may use is left out), and what is out.

        What is out does not keep mail waiting that another key opens.
        """
        common: dict[str, KeyHandle] | None = None
        out: KeyUnavailable | None = None
        for recipient in recipients:
            mine: dict[str, KeyHandle] = {}
            for store in self.stores:
                try:
                    handles = await store.keys_for(recipient, "decrypt")
                except KeyUnavailable as error:
                    out = out or KeyUnavailable(error.message, hint=error.hint, reply=error.reply, stage=need_of(error, store.name))
                    continue
                for handle in handles:
                    if _belongs(handle.assigned, recipient) and handle.name not in mine:
                        mine[handle.name] = self._audited(handle, store, recipient)
            common = mine if common is None else {name: handle for name, handle in common.items() if name in mine}
        return list((common or {}).values()), out

    async def openers(self, recipients: Sequence[Address]) -> list[Openers]:
        """Who may be opened for with the same keys, in the order of the first of each; a store that is out is what they may wait for."""
        groups: dict[tuple[str, ...], Openers] = {}
        for recipient in recipients:
            keys, out = await self.keys_to_open((recipient,))
            wait = "" if out is None else need_of(out, "keys")
            name = (wait, *(handle.name for handle in keys))
            known = groups.get(name, Openers((), tuple(keys), wait))
            groups[name] = replace(known, recipients=(*known.recipients, recipient))
        return list(groups.values())

    async def key(self, reference: str) -> KeyHandle | None:
        """The key that the first store knows by that name."""
        for store in self.stores:
            handle = await store.key(reference)
            if handle is not None:
                return self._audited(handle, store, None)
        return None

    def _audited(self, handle: KeyHandle, store: KeyStore, address: Address | None) -> KeyHandle:
        return handle if self._audit is None else self._audit.key(handle, store.name, "" if address is None else str(address))


def need_of(error: KeyUnavailable, store: str) -> str:
    """The need that a raw row is committed with: a store names its token in `stage` ("token:HSM 1"), else the store itself is meant."""
    return error.stage if error.stage.startswith("token:") else f"token:{store}"


@lru_cache(maxsize=4096)
def _belongs(assigned: tuple[str, ...], address: Address) -> bool:
    return Addresses(assigned).match(address)


def _no_key(sender: Address) -> Reason:
    return Reason(
        "no-signing-key",
        "policy",
        f"a signature is required, and there is no signing key for {sender}",
        hint=f"import or issue a certificate with its key for {sender}, or assign one to it",
    )
