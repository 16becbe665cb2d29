"""Nicknames: what an entry of the database may be called.

A nickname is shown on terminals and in logs, and written in configuration files beside `token:nickname`, `file:PATH` and
`pkcs11:` URIs. The one invariant: a nickname holds no colon and nothing that does not print.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Container

from mailsec.errors import UsageError

__all__ = ["LONGEST", "check_nickname", "free_nickname", "make_nickname"]

LONGEST = 128
"""Characters of a nickname."""


def check_nickname(text: str) -> str:
    """`text` in NFC; raise UsageError where it cannot be a nickname."""
    text = unicodedata.normalize("NFC", text)
    if not text or text != text.strip():
        raise UsageError("a nickname is empty or has blanks around it", hint='choose one like "mail-2026"')
    if len(text) > LONGEST:
        raise UsageError(f"a nickname has more than {LONGEST} characters", hint='choose one like "mail-2026"')
    if ":" in text:
        raise UsageError(f"nickname {text[:40]!r} holds a colon", hint="a colon stands between a token and a nickname: choose another sign")
    # Attack: escape sequences, line breaks and reversed text in the terminal or the log of whoever lists the database.
    if not all(_prints(character) for character in text):
        raise UsageError(f"nickname {text[:40]!a} holds a character that does not print", hint='choose one like "mail-2026"')
    return text


def make_nickname(text: str, otherwise: str) -> str:
    """A nickname out of text from outside (a friendly name, a subject): what may not be in one is left out."""
    text = unicodedata.normalize("NFC", text[: 4 * LONGEST]).replace(":", " ")
    text = " ".join("".join(character if _prints(character) else " " for character in text).split())[:LONGEST].strip()
    return text or otherwise


def free_nickname(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or with a number behind it where it is taken."""
    if wanted not in taken:
        return wanted
    number = 2
    while (candidate := f"{wanted[: LONGEST - 8]} #{number}") in taken:
        number += 1
    return candidate


def _prints(character: str) -> bool:
    return character == " " or unicodedata.category(character)[0] not in "CZ"
