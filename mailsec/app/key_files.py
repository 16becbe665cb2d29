"""Private keys in files, as commands read them."""

from __future__ import annotations

import sys

from mailsec.app.databases import ask_password
from mailsec.app.files import naming, read_file
from mailsec.errors import PrivateKeyError
from mailsec.keys.files import load_private_key

__all__ = ["key_from_file"]


def key_from_file(file: str, password_file: str, *, option: str = "--key-password-file") -> bytes:
    """The private key in `file` (PEM or DER) as PKCS#8 DER; its password is asked for where one is needed and there is a terminal."""
    data = read_file(file)
    with naming(file):
        if password_file:
            return load_private_key(data, ask_password(password_file, ""))
        try:
            return load_private_key(data, None)
        except PrivateKeyError as error:
            if "protected" not in error.message:
                raise
            if not sys.stdin.isatty():
                raise PrivateKeyError(error.message, hint=f"give it with {option} FILE") from None
        return load_private_key(data, ask_password("", f"Password of {file}"))
