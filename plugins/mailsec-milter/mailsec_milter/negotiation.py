"""Option negotiation (SMFIC_OPTNEG): which version, which actions, which steps, and which macros the MTA is asked to send.

The one invariant: nothing is asked for that was not offered; an MTA that does not offer what signing needs is told so at once, by the end
of the connection, and not when the first message is there.
"""

from __future__ import annotations

from typing import NamedTuple

from mailsec.errors import RemoteProtocolError
from mailsec_milter.packets import number
from mailsec_milter.words import ACTIONS, NEEDED, VERSIONS, Action, Step

__all__ = ["Terms", "negotiate"]

_OFFER = 12
_MACROS = (
    (0, b"j {daemon_name}"),  # SMFIM_CONNECT
    (1, b"{tls_version} {cipher} {cipher_bits}"),  # SMFIM_HELO
    (2, b"{auth_type} {auth_authen}"),  # SMFIM_ENVFROM
    (5, b"i"),  # SMFIM_EOM
)
"""Macros that are wanted, by the stage at which they are to come: others cost the MTA look-ups, and us nothing but memory."""


class Terms(NamedTuple):
    """What both have agreed on."""

    version: int
    actions: int
    steps: int

    def answers(self, command: bytes) -> bool:
        """True where the MTA waits for an answer to `command`."""
        return not self.steps & Step.UNANSWERED.get(command, 0)

    @property
    def leading_space(self) -> bool:
        """True where blanks behind the colon of a header field come and go as they are."""
        return bool(self.steps & Step.LEADING_SPACE)

    @property
    def skips(self) -> bool:
        """True where it may be told that no more of the body is wanted."""
        return bool(self.steps & Step.SKIP) and self.answers(b"B")

    @property
    def quarantines(self) -> bool:
        """True where a message may be put on hold in the MTA's queue."""
        return bool(self.actions & Action.QUARANTINE)

    def packed(self) -> bytes:
        """The data of the answer, with the list of wanted macros where the MTA takes one."""
        told = number(self.version) + number(self.actions) + number(self.steps)
        if self.actions & Action.SET_SYMBOLS:
            told += b"".join(number(stage) + names + b"\0" for stage, names in _MACROS)
        return told


_WANTED = Step.NO_UNKNOWN | Step.NO_DATA | Step.SKIP | Step.LEADING_SPACE | sum(Step.UNANSWERED.values())


def negotiate(offer: bytes) -> Terms:
    """The terms for an MTA's offer (version, actions, steps). Raise RemoteProtocolError where there can be none."""
    if len(offer) < _OFFER:
        raise RemoteProtocolError("an offer that is cut off", hint="an MTA offers a version, actions and protocol steps")
    version, actions, steps = (int.from_bytes(offer[at : at + 4], "big") for at in (0, 4, 8))
    oldest, newest = VERSIONS
    if version < oldest:
        raise RemoteProtocolError(f"milter protocol version {version}", hint="set milter_protocol to 6 (Postfix)")
    if actions & NEEDED != NEEDED:
        raise RemoteProtocolError(
            "the MTA lets no milter change header and body", hint="Postfix does by default; Sendmail: no F= of its own"
        )
    version = min(version, newest)
    wanted = ACTIONS if version >= newest else ACTIONS & ~Action.SET_SYMBOLS
    return Terms(version, actions & wanted, steps & _WANTED)
