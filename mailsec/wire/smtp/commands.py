"""The arguments of SMTP commands: paths, parameters, and responses to AUTH (RFC 5321 §4.1, RFC 1870, RFC 6152, RFC 3461, RFC 4616).

The one invariant: what cannot be read wholly is refused with a reply; nothing is guessed from half an argument.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache

from mailsec.errors import AddressError, ProtocolError, Reply
from mailsec.interfaces import Credentials
from mailsec.model.address import Address
from mailsec.model.session import Envelope, Recipient

__all__ = ["CommandError", "client_name", "encode_plain", "parse_external", "parse_mail", "parse_plain", "parse_rcpt", "xtext"]

# A quoted local part may hold ">" (RFC 5321 §4.1.2), so the path ends at the first ">" outside quotes. The alternatives begin with
# different octets: matching is linear. A blank behind the colon and an address without brackets are no part of the grammar, but
# clients of the world send both, and nothing else can be meant.
_PATH = r'[ \t]*(?:<((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>|([^<>" \t]+))(?:[ \t]+(.*))?\Z'
_FROM = re.compile(rf"FROM:{_PATH}", re.IGNORECASE | re.DOTALL)
_TO = re.compile(rf"TO:{_PATH}", re.IGNORECASE | re.DOTALL)
# RFC 5321 §4.1.2: esmtp-param = esmtp-keyword ["=" esmtp-value]
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+))?\Z")
# RFC 3461 §4: xtext
_XTEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*\Z")
# RFC 6533 §3: under SMTPUTF8 an original recipient of the type utf-8 stands there as it is.
_ORIGINAL = re.compile(r"[A-Za-z0-9-]{1,64};(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|[^\x00-\x9f]|\+[0-9A-F]{2})*\Z")
_NO_NAME = re.compile(r'[^!-~]|[()<>;,\\"]')
_SIZE = re.compile(r"[0-9]{1,20}\Z")

_SYNTAX_MAIL = Reply(501, "5.5.4", "syntax: MAIL FROM:<address> [parameters]")
_SYNTAX_RCPT = Reply(501, "5.5.4", "syntax: RCPT TO:<address> [parameters]")
_BAD_PARAMETER = Reply(501, "5.5.4", "bad parameter")
_NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "this address needs SMTPUTF8")


class CommandError(ProtocolError):
    """A command that is refused; `reply` says how."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text, reply=reply)


@lru_cache(maxsize=1024)
def _parse_path(path: str) -> Address:
    # RFC 5321 §4.1.1.3, appendix C: a source route before the address is accepted and ignored.
    if path.startswith("@"):
        path = path.partition(":")[2]
    return Address.parse(path)


def _address(path: str, smtputf8: bool, enhanced: str) -> Address:
    # RFC 6531 §3.4: without the SMTPUTF8 parameter an address is ASCII.
    if not smtputf8 and not path.isascii():
        raise CommandError(_NEEDS_SMTPUTF8)
    try:
        return _parse_path(path)
    except AddressError:
        raise CommandError(Reply(501, enhanced, "bad address syntax")) from None


def _parameters(text: str | None) -> dict[str, str]:
    if not text:
        return {}
    found: dict[str, str] = {}
    for word in text.split():
        match = _PARAMETER.match(word)
        # RFC 5321 §4.1.1.11: a parameter stands at most once.
        if match is None or (name := match[1].upper()) in found:
            raise CommandError(_BAD_PARAMETER)
        found[name] = match[2] or ""
    return found


def _unknown(name: str) -> CommandError:
    # RFC 5321 §4.1.1.11: 555 for a parameter that is not implemented.
    return CommandError(Reply(555, "5.5.4", f"parameter {name[:40]} is not known here"))


def _text(argument: bytes) -> str:
    try:
        return argument.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(Reply(501, "5.5.2", "octets that are not UTF-8")) from None


def client_name(argument: bytes) -> str:
    """How a client calls itself in EHLO. It is a claim, and goes into logs and the Received field: only what can stand there is kept."""
    return _NO_NAME.sub("?", argument[:255].decode("latin-1"))


def parse_mail(argument: bytes, *, smtputf8: bool, dsn: bool, auth: bool) -> Envelope:
    """Read what follows `MAIL `; the flags say which extensions were offered. Raise CommandError."""
    match = _FROM.match(_text(argument))
    if match is None:
        raise CommandError(_SYNTAX_MAIL)
    path, rest = match[1] if match[2] is None else match[2], match[3]
    if not rest:
        return Envelope(_address(path, False, "5.1.7") if path else None, ())
    size, body, utf8, ret, envid, authenticated = 0, "7BIT", False, "", "", ""
    for name, value in _parameters(rest).items():
        if name == "SIZE":
            # RFC 1870 §3: size-value = 1*20DIGIT
            if not _SIZE.match(value):
                raise CommandError(_BAD_PARAMETER)
            size = int(value)
        elif name == "BODY":
            # RFC 6152 §3: 7BIT or 8BITMIME; BINARYMIME (RFC 3030) is not offered.
            body = value.upper()
            if body not in ("7BIT", "8BITMIME"):
                raise CommandError(_BAD_PARAMETER)
        elif name == "SMTPUTF8" and smtputf8 and not value:
            utf8 = True
        elif name == "AUTH" and auth:
            # RFC 4954 §5: a server that offers AUTH accepts the parameter; whom it trusts is another matter.
            if not value or not _XTEXT.match(value.replace("<>", "")):
                raise CommandError(_BAD_PARAMETER)
            authenticated = value
        elif name == "RET" and dsn:
            ret = value.upper()
            if ret not in ("FULL", "HDRS"):
                raise CommandError(_BAD_PARAMETER)
        elif name == "ENVID" and dsn:
            if not value or len(value) > 100 or not _XTEXT.match(value):
                raise CommandError(_BAD_PARAMETER)
            envid = value
        else:
            raise _unknown(name)
    reverse_path = _address(path, utf8, "5.1.7") if path else None
    return Envelope(reverse_path, (), size, body, utf8, ret, envid, authenticated)


def parse_rcpt(argument: bytes, *, hostname: str, smtputf8: bool, dsn: bool) -> Recipient:
    """Read what follows `RCPT `; `smtputf8` says whether MAIL had that parameter. Raise CommandError."""
    match = _TO.match(_text(argument))
    if match is None:
        raise CommandError(_SYNTAX_RCPT)
    path, rest = match[1] if match[2] is None else match[2], match[3]
    # RFC 5321 §4.5.1: <Postmaster> without a domain is accepted; it is the postmaster of this host.
    address = Address(path, hostname) if path.lower() == "postmaster" else _address(path, smtputf8, "5.1.3")
    if not rest:
        return Recipient(address)
    notify = original = ""
    for name, value in _parameters(rest).items():
        if name == "NOTIFY" and dsn:
            # RFC 3461 §4.1: NEVER, or a list of SUCCESS, FAILURE, DELAY.
            notify = value.upper()
            words = notify.split(",")
            if words != ["NEVER"] and (not set(words) <= {"SUCCESS", "FAILURE", "DELAY"} or len(set(words)) != len(words)):
                raise CommandError(_BAD_PARAMETER)
        elif name == "ORCPT" and dsn:
            # RFC 3461 §4.2: original-recipient-address = addr-type ";" xtext, at most 500 characters
            if len(value) > 500 or not _ORIGINAL.match(value) or not (value.isascii() or smtputf8):
                raise CommandError(_BAD_PARAMETER)
            original = value
        else:
            raise _unknown(name)
    return Recipient(address, notify, original)


def parse_plain(response: bytes) -> Credentials:
    """Read a PLAIN response in base64 (RFC 4616 §2: [authzid] NUL authcid NUL passwd). Raise CommandError."""
    bad = CommandError(Reply(501, "5.5.2", "the response cannot be read"))
    try:
        message = binascii.a2b_base64(response, strict_mode=True)
        authorisation, login, secret = message.split(b"\0")
        name, identity = login.decode("utf-8"), authorisation.decode("utf-8")
    except ValueError:  # no base64 (binascii.Error), not three fields, no UTF-8 (UnicodeDecodeError)
        raise bad from None
    if not name or not secret:
        raise bad
    return Credentials("PLAIN", name, secret, identity)


def parse_external(response: bytes) -> Credentials:
    """Read an EXTERNAL response in base64 (RFC 4422 §A.1: [authzid]); "=" is the empty one (RFC 4954 §4). Raise CommandError."""
    try:
        identity = binascii.a2b_base64(b"" if response == b"=" else response, strict_mode=True).decode("utf-8")
    except ValueError:
        raise CommandError(Reply(501, "5.5.2", "the response cannot be read")) from None
    return Credentials("EXTERNAL", "", b"", identity)


def encode_plain(login: str, secret: bytes) -> bytes:
    """The PLAIN response in base64, without an authorisation identity (RFC 4616 §2)."""
    return binascii.b2a_base64(b"\0" + login.encode("utf-8") + b"\0" + secret, newline=False)


def xtext(text: str) -> str:
    """`text` (ASCII) as xtext (RFC 3461 §4)."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)
