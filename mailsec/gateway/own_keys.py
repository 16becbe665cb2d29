"""Our own keys and revocation: a key whose certificate was revoked is not used; one of which nothing is known is.

What is known of a key is remembered, and looked at again beside the mail, so that signing costs one look-up in a dictionary. The one
invariant: the first message that a key would sign waits until it was asked after (for `limits.evidence_timeout` at most); no later one does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from mailsec.errors import MailsecError
from mailsec.gateway.keyring import Signers
from mailsec.interfaces import KeyHandle, Runtime
from mailsec.model.verdict import Event, Reason, Revocation
from mailsec.pki.path import PathResult

__all__ = ["OwnKeys"]

_AGAIN = 300.0
"""Seconds after which a key is asked after again."""
_SOON = 30.0
"""The same where trust could not be read."""
_MOST = 100_000


@dataclass(slots=True)
class _Known:
    until: float
    revoked: Reason | None
    asking: bool = False


class OwnKeys:
    """What is known of our own certificates. `status` finds out; `alarm` is told of a key that was revoked."""

    def __init__(
        self, runtime: Runtime, status: Callable[[KeyHandle], Awaitable[PathResult | None]], alarm: Callable[[Event], None] | None = None
    ) -> None:
        self._runtime = runtime
        self._status = status
        self._alarm = alarm
        self._known: dict[bytes, _Known] = {}

    async def usable(self, signers: Signers) -> Signers:
        """The signers without keys that were revoked; the same object where there is none."""
        now = self._runtime.monotonic()
        revoked: dict[str, Reason] = {}
        for name, handle in signers.handles.items():
            certificate = handle.certificate
            if certificate is None:
                continue
            known = self._known.get(certificate)
            if known is None:
                known = await self._look(handle, certificate)
            elif now >= known.until and not known.asking:
                known.asking = True
                self._runtime.start(self._look(handle, certificate), "own certificates")
            if known.revoked is not None:
                revoked[name] = known.revoked
        if not revoked:
            return signers
        handles = {name: handle for name, handle in signers.handles.items() if name not in revoked}
        return replace(signers, handles=handles, names=tuple(handles), missing=(*revoked.values(), *signers.missing))

    async def _look(self, handle: KeyHandle, certificate: bytes) -> _Known:
        seconds, revoked = _AGAIN, None
        try:
            result = await self._status(handle)
        except MailsecError:
            # Whether it was revoked cannot be said: it is used, or stays out as it was.
            before = self._known.get(certificate)
            seconds, revoked = _SOON, before.revoked if before is not None else None
        else:
            if result is not None and result.revocation is Revocation.REVOKED:
                why = next((reason.message for reason in result.reasons if reason.code == "revoked"), "revoked")
                revoked = Reason(
                    "key-revoked", "revocation", f"the certificate of {handle.name} cannot be used: {why}", "issue a new one for its holder"
                )
                self._tell(handle, why)
        known = _Known(self._runtime.monotonic() + seconds, revoked)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[certificate] = known
        return known

    def _tell(self, handle: KeyHandle, why: str) -> None:
        if self._alarm is not None:
            self._alarm(Event("key revoked", self._runtime.now(), {"key": handle.name, "reason": why}))
