"""One tree of errors; each knows whether it passes by itself, what the peer is told, and what the operator can do.

    MailsecError
    ├── ConfigurationError       the configuration is wrong; nothing was started (exit 78)
    ├── UsageError               a command was called wrongly (exit 2)
    ├── InputError               octets that cannot be read as what they were said to be (exit 3)
    │   ├── AddressError         not an address (RFC 5321 §4.1.2, RFC 5322 §3.4)
    │   ├── Asn1Error            not BER or DER, or not the type that stands here (X.690)
    │   ├── MimeError            not a message or not the structure it declares (RFC 2045, RFC 5322)
    │   ├── CmsError             not the CMS type it declares (RFC 5652)
    │   ├── CertificateError     not a certificate, or a field of it that is needed cannot be read (RFC 5280)
    │   └── PrivateKeyError      not a private key, or the wrong pass phrase for it (RFC 5958, RFC 7292)
    ├── LimitExceeded            over a limit of `model.limits`; names it
    ├── ProtocolError            a wire protocol was broken
    │   ├── LocalProtocolError   by us: a programming error, never sent
    │   └── RemoteProtocolError  by the peer
    ├── Refused                  a rule says no: permanent for this message and recipient
    ├── TryLater                 not now: the peer should come back
    ├── KeyUnavailable           no key, or the token that holds it is out
    ├── TokenError               a token refuses for good: a wrong PIN, a mark, an operation that it does not know
    ├── CryptoError              an operation failed; deliberately says little
    │   └── UnknownAlgorithm     none that is computed with: whether a signature by it is right is not known
    ├── StoreError               the database or the spool
    │   ├── WrongPassphrase      the pass phrase opens nothing
    │   ├── Tampered             a row that somebody else wrote: refused
    │   ├── SchemaError          written by a newer mailsec, or not a mailsec database
    │   └── StorageFull          no room or no inodes: 452
    ├── Unavailable              network, resolver, database, next hop: temporary
    └── PluginError              a plugin raised, was late, or answered with the wrong type

Voice of messages: lower case, no full stop, name the thing; the next step goes into `hint`.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

__all__ = [
    "AddressError",
    "Asn1Error",
    "CertificateError",
    "CmsError",
    "ConfigurationError",
    "CryptoError",
    "InputError",
    "KeyUnavailable",
    "LimitExceeded",
    "LocalProtocolError",
    "MailsecError",
    "MimeError",
    "PluginError",
    "PrivateKeyError",
    "ProtocolError",
    "Refused",
    "RemoteProtocolError",
    "Reply",
    "SchemaError",
    "StorageFull",
    "StoreError",
    "Tampered",
    "TokenError",
    "TryLater",
    "Unavailable",
    "UnknownAlgorithm",
    "UsageError",
    "WrongPassphrase",
]


class Reply(NamedTuple):
    """What a peer is told: an SMTP reply code, an enhanced status code (RFC 3463, "" for none) and a text.

    The text is for strangers: it never holds a path, a nickname, or anything from inside an encrypted message (promise 6).
    """

    code: int
    enhanced: str
    text: str

    @property
    def temporary(self) -> bool:
        """True for 4yz (RFC 5321 §4.2.1)."""
        return 400 <= self.code < 500

    @property
    def positive(self) -> bool:
        """True for 2yz and 3yz."""
        return 200 <= self.code < 400


class MailsecError(Exception):
    """An error that mailsec understands.

    `message` is for the operator's log; `hint` is the operator's next step; `reply` is what a peer may be told, and is generic
    on purpose; `temporary` is True where the same thing may work later without anybody changing anything.
    """

    temporary: ClassVar[bool] = False
    default_reply: ClassVar[Reply] = Reply(554, "5.3.0", "message refused")
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", reply: Reply | None = None, stage: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.stage = stage
        self.reply = reply or self.default_reply

    def __str__(self) -> str:
        return self.message


class ConfigurationError(MailsecError):
    """The configuration is wrong; nothing was started."""

    exit_code = 78


class UsageError(MailsecError):
    """A command was called with arguments that do not go together."""

    exit_code = 2


class InputError(MailsecError):
    """Octets that cannot be read as what they were said to be."""

    default_reply = Reply(554, "5.6.0", "the message cannot be read")
    exit_code = 3


class AddressError(InputError):
    """Not an address."""

    default_reply = Reply(501, "5.1.3", "bad address syntax")


class Asn1Error(InputError):
    """Not BER or DER, or not the type that must stand here."""


class MimeError(InputError):
    """Not a message, or not the structure that it declares."""


class CmsError(InputError):
    """Not the CMS structure that it declares."""


class CertificateError(InputError):
    """Not a certificate, or a needed field of it cannot be read."""


class PrivateKeyError(InputError):
    """Not a private key, or the wrong pass phrase for it."""


class LimitExceeded(MailsecError):
    """Over a limit of `model.limits`; `limit` is its name there."""

    default_reply = Reply(552, "5.3.4", "the message is over a limit")

    def __init__(self, limit: str, message: str, *, hint: str = "", reply: Reply | None = None, stage: str = "") -> None:
        super().__init__(message, hint=hint, reply=reply, stage=stage)
        self.limit = limit


class ProtocolError(MailsecError):
    """A wire protocol was broken."""

    default_reply = Reply(500, "5.5.2", "protocol error")


class LocalProtocolError(ProtocolError):
    """We were about to break the protocol: a programming error, never sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol."""


class Refused(MailsecError):
    """A rule says no, permanently, for this message and recipient."""

    default_reply = Reply(550, "5.7.1", "refused by policy")


class TryLater(MailsecError):
    """Not now: the peer should come back later."""

    temporary = True
    default_reply = Reply(451, "4.3.0", "try again later")
    exit_code = 75


class KeyUnavailable(MailsecError):
    """There is no such key, or the token that holds it is out."""

    temporary = True
    default_reply = Reply(451, "4.3.2", "a key is not available, try again later")


class TokenError(MailsecError):
    """A token refuses for good: a wrong PIN, a mark of an earlier login, an operation that it does not know. It is not asked again by itself."""


class CryptoError(MailsecError):
    """A cryptographic operation failed. It says little on purpose: details would be an oracle."""


class UnknownAlgorithm(CryptoError):
    """None that is computed with: whether a signature by it is right is not known."""


class StoreError(MailsecError):
    """The database or the spool cannot do what was asked."""

    temporary = True
    default_reply = Reply(451, "4.3.0", "local storage error, try again later")


class WrongPassphrase(StoreError):
    """The pass phrase opens nothing."""


class Tampered(StoreError):
    """A row that was not written by mailsec: it decides nothing."""


class SchemaError(StoreError):
    """Written by a newer mailsec, or not a mailsec database."""

    exit_code = 78


class StorageFull(StoreError):
    """No room, or no inodes."""

    default_reply = Reply(452, "4.3.1", "insufficient system storage")


class Unavailable(MailsecError):
    """The network, a resolver, a database or a next hop is away."""

    temporary = True
    default_reply = Reply(451, "4.4.0", "temporarily unavailable")
    exit_code = 75


class PluginError(MailsecError):
    """A plugin raised, was late, or answered with the wrong type. It defers; it never accepts (promise 7)."""

    temporary = True
    default_reply = Reply(451, "4.3.0", "local policy error, try again later")

    def __init__(self, plugin: str, hook: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"plugin {plugin}: {hook}: {message}", hint=hint, stage="plugin")
        self.plugin = plugin
        self.hook = hook
