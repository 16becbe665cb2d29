"""The mail server of the demonstration that asks mailsec: an MTA's half of the milter protocol, and of Postfix's socketmap, on blocking sockets.

What it is told to change it changes, as Postfix would; and it says what it was told.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from mailsec.app.demo.show import StepFailed

__all__ = ["Asked", "ask_map", "ask_milter"]

_SECONDS = 20
_OFFER = struct.pack("!III", 6, 0x1FF, 0x1FFFFF)
"""Version 6, every action, every step: what Postfix offers."""


@dataclass(slots=True)
class Asked:
    """What a milter said of a message."""

    refusal: str = ""
    octets: bytes = b""
    """The message with the changes made."""
    changes: list[str] = field(default_factory=list)


def ask_milter(port: int, octets: bytes, sender: str, recipients: list[str], login: str = "") -> Asked:
    """Show a message to the milter on the loopback port, from a client who has logged in as `login`."""
    head, _, body = octets.partition(b"\r\n\r\n")
    fields = list(_fields(head))
    said = [
        (b"O", _OFFER),
        (b"C", b"client.example.net\x004" + struct.pack("!H", 40000) + b"192.0.2.7\0"),
        (b"H", b"client.example.net\0"),
        (b"D", b"M{auth_authen}\0" + login.encode() + b"\0" if login else b"M"),
        (b"M", b"<" + sender.encode() + b">\0"),
        *((b"R", b"<" + one.encode() + b">\0") for one in recipients),
        *((b"L", name + b"\0" + value + b"\0") for name, value in fields),
        (b"N", b""),
        *((b"B", body[at : at + 65535]) for at in range(0, len(body), 65535)),
        (b"D", b"Ei\0demonstration\0"),
        (b"E", b""),
    ]
    with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"".join(struct.pack("!I", 1 + len(data)) + command + data for command, data in said))
        return _apply(answers, fields, body)


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in head.replace(b"\r\n\t", b"\n\t").replace(b"\r\n ", b"\n ").split(b"\r\n"):
        name, _, value = line.partition(b":")
        yield name, value


def _apply(answers: object, fields: list[tuple[bytes, bytes]], body: bytes) -> Asked:
    found, replaced = Asked(), []
    while True:
        command, data = _packet(answers)
        if command == b"c":
            break
        if command == b"y":
            return Asked(refusal=data.rstrip(b"\0").decode("latin-1").replace("%%", "%"))
        if command == b"b":
            replaced.append(data)
        elif command in (b"i", b"m", b"h"):
            place = int.from_bytes(data[:4], "big") if command != b"h" else 0
            name, value = (data if command == b"h" else data[4:]).split(b"\0")[:2]
            _change(fields, command, place, name, value)
            what = {b"i": "on top", b"h": "added", b"m": "changed" if value else "taken away"}[command]
            found.changes.append(f"{name.decode('latin-1')} {what}")
    if replaced:
        found.changes.append("another body")
    lines = b"".join(name + b":" + value.replace(b"\n", b"\r\n") + b"\r\n" for name, value in fields)
    found.octets = lines + b"\r\n" + (b"".join(replaced) or body)
    return found


def _change(fields: list[tuple[bytes, bytes]], command: bytes, place: int, name: bytes, value: bytes) -> None:
    if command == b"h":
        fields.append((name, value))
    elif command == b"i":
        fields.insert(place, (name, value))
    else:
        at = [number for number, one in enumerate(fields) if one[0].lower() == name.lower()][place - 1]
        fields[at : at + 1] = [(name, value)] if value else []


def _packet(answers: object) -> tuple[bytes, bytes]:
    """The next packet of interest: what is no answer (the terms, "still at work") is passed over."""
    read = answers.read  # type: ignore[attr-defined]  # a file of a socket
    while True:
        length = read(4)
        if len(length) < 4:
            raise StepFailed("the milter", "an answer", "it closed the connection")
        packet = read(int.from_bytes(length, "big"))
        if packet[:1] not in (b"O", b"p"):
            return packet[:1], packet[1:]


def ask_map(port: int, name: str, key: str) -> str:
    """What socketmap_table(5) on the loopback port says of `key` in the map `name`: "OK …", "NOTFOUND "."""
    question = f"{name} {key}".encode()
    with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"%d:%s," % (len(question), question))
        length = b""
        while (sign := answers.read(1)).isdigit():
            length += sign
        return answers.read(int(length or b"0")).decode("latin-1")
