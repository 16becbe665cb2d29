"""Who answers Postfix: from what the gateway knows of certificates, recipients and people.

The one invariant: "there is none" is said only where the gateway knows that; what cannot be said now is TEMP or a deferral, never a yes.
"""

from __future__ import annotations

from mailsec.errors import AddressError, MailsecError
from mailsec.interfaces import Gateway
from mailsec.model.address import Address
from mailsec.model.session import matches_pattern
from mailsec_socketmap.netstrings import LookUp
from mailsec_socketmap.policy import PolicyRequest
from mailsec_socketmap.settings import SocketmapSettings

__all__ = ["Answers"]

_NOT_FOUND = "NOTFOUND "
_NO_OPINION = "DUNNO"


class Answers:
    """A `Conversation`."""

    def __init__(self, gateway: Gateway, settings: SocketmapSettings) -> None:
        self._gateway = gateway
        self._settings = settings

    async def ask(self, question: object) -> str:
        """What a map says of a key, or what is to happen."""
        if isinstance(question, LookUp):
            return await self._look_up(question)
        assert isinstance(question, PolicyRequest)
        try:
            return await self._decide(question)
        except MailsecError as error:
            return f"DEFER_IF_PERMIT {'4.3.0 try again later' if error.temporary else '4.3.5 local error'}"

    async def _look_up(self, question: LookUp) -> str:
        if question.name not in ("certificate", "recipient"):
            return f"PERM there is no map {question.name!a}: certificate and recipient"
        try:
            # Postfix asks for parts of addresses, too: "example.net", "@example.net", "*".
            address = Address.parse(question.key)
        except AddressError:
            return _NOT_FOUND
        try:
            if question.name == "recipient":
                return f"OK {self._settings.recipient}" if await self._gateway.recipient_exists(address) else _NOT_FOUND
            return f"OK {self._settings.certificate}" if await self._gateway.usable_certificates(address) else _NOT_FOUND
        except MailsecError as error:
            return f"{'TEMP' if error.temporary else 'PERM'} {error.reply.text}"

    async def _decide(self, request: PolicyRequest) -> str:
        login, sender, recipient = request.get("sasl_username"), request.get("sender"), request.get("recipient")
        if login and sender:
            identity = await self._gateway.identity(login)
            address = _address(sender)
            if identity is None or address is None or not self._gateway.may_send(identity, address):
                return self._settings.wrong_sender
        if recipient and self._settings.require_certificate:
            address = _address(recipient)
            if self._needs_certificate(recipient, address) and (address is None or not await self._gateway.usable_certificates(address)):
                return self._settings.no_certificate
        return _NO_OPINION

    def _needs_certificate(self, recipient: str, address: Address | None) -> bool:
        """Whether `require_certificate` means a recipient; `address` is None where it can be read by Postfix alone."""
        # Attack: "bob..b@partner.example" is no address to us, is one to Postfix, and would leave in clear.
        somebody = address or _address("somebody@" + recipient.rpartition("@")[2].rstrip("."))
        if somebody is None:
            return "@" in recipient or "*" in self._settings.require_certificate
        return any(matches_pattern(one, somebody) for one in self._settings.require_certificate)

    def body(self, chunk: bytes | memoryview) -> None:
        """No messages come this way."""

    def end_of_body(self) -> None:
        """No messages come this way."""

    def closed(self) -> None:
        """Nothing is held."""


def _address(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except AddressError:
        return None
