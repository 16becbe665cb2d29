"""The demonstration's independent mailbox: Twisted's POP3 server over the Maildir, without TLS, for this machine only.

Run as `python -m mailsec.app.demo.mailbox MAILDIR`, the password on the first line of standard input; prints its port, and ends when
standard input closes. Who logs in as NAME@DOMAIN reads what was sent to that address.
"""

from __future__ import annotations

import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.protocol import Factory
from twisted.mail.pop3 import POP3, IMailbox
from twisted.mail.pop3 import Mailbox as TwistedMailbox
from zope.interface import implementer

from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets

__all__ = ["main"]


class _Mailbox(TwistedMailbox):
    """The messages for one address, the oldest first."""

    def __init__(self, directory: Path, address: str) -> None:
        self._paths = [path for path in sorted((directory / "new").iterdir()) if address in _recipients(path)]

    def listMessages(self, index: int | None = None) -> Any:
        """The sizes; of a number that there is not, twisted.mail wants a ValueError."""
        if index is None:
            return [len(_lines(path)) + _lines(path).count(b"\n") for path in self._paths]
        return self.listMessages()[self._at(index)]

    def getMessage(self, index: int) -> Any:
        """twisted.mail makes CRLF of every LF, and doubles the dots."""
        return BytesIO(_lines(self._paths[self._at(index)]))

    def getUidl(self, index: int) -> bytes:
        return self._paths[self._at(index)].name.encode("ascii")

    def deleteMessage(self, index: int) -> None:
        """Nothing is deleted: what was delivered is looked at in the end."""

    def _at(self, index: int) -> int:
        if index >= len(self._paths):
            raise ValueError(index)
        return index


@implementer(IRealm, ICredentialsChecker)
class _People:
    """Everybody, with one password."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, directory: Path, password: bytes) -> None:
        self._directory = directory
        self._password = password

    def requestAvatarId(self, credentials: Any) -> bytes:
        if not credentials.checkPassword(self._password):
            raise UnauthorizedLogin
        name: bytes = credentials.username
        return name

    def requestAvatar(self, name: bytes, mind: object, *interfaces: object) -> tuple[Any, _Mailbox, Any]:
        return IMailbox, _Mailbox(self._directory, name.decode("utf-8", "replace").lower()), lambda: None


def _lines(path: Path) -> bytes:
    return path.read_bytes().replace(b"\r\n", b"\n")


def _recipients(path: Path) -> str:
    return (index_message(BytesOctets(path.read_bytes())).first("to") or "").lower()


def main() -> None:
    """Serve until standard input ends."""
    from twisted.internet import reactor

    anyreactor: Any = reactor
    people: Any = _People(Path(sys.argv[1]), sys.stdin.buffer.readline().strip())
    portal = Portal(people, [people])

    class _Server(Factory):
        noisy = False

        def buildProtocol(self, addr: object) -> Any:
            protocol: Any = POP3()
            protocol.portal, protocol.factory = portal, self
            return protocol

    port = anyreactor.listenTCP(0, _Server(), interface="127.0.0.1")
    print(port.getHost().port, flush=True)

    def wait() -> None:
        sys.stdin.buffer.read()
        anyreactor.callFromThread(anyreactor.stop)

    threading.Thread(target=wait, daemon=True).start()
    anyreactor.run()


if __name__ == "__main__":
    main()
