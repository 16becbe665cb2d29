"""Keys that `mailsec key generate` makes on a token: where, and with which PIN.

Invariant: where a module is the default for a kind of key, such a key is made there or not at all: never in the database instead.
"""

from __future__ import annotations

from typing import Any

from mailsec.app.databases import ask_password, open_database
from mailsec.app.options import DatabaseChoice
from mailsec.app.output import Output
from mailsec.app.token_choice import TokenChoice

__all__ = ["default_module", "make_on_token"]

_FAMILIES = {"rsa": "rsa", "ec": "ec", "ed25519": "eddsa", "ed448": "eddsa", "ml-dsa": "ml-dsa", "ml-kem": "ml-kem"}


def default_module(output: Output, choice: DatabaseChoice, kind: str) -> str:
    """The module that is the default for such keys (`mailsec module default`); empty where there is none."""
    from mailsec.store.modules import Modules

    if choice.database.startswith("nss:"):
        return ""
    family = _FAMILIES.get(kind.rpartition("-")[0] or kind, "")
    with open_database(output, choice, look=True) as opened:
        return next((entry.name for entry in Modules(opened).all() if entry.verified and family and family in entry.defaults), "")


def make_on_token(
    output: Output, choice: DatabaseChoice, *, module: str, token: str, kind: str, label: str, pin_file: str
) -> dict[str, Any]:
    """Make a key on `token` (empty: the only one of `module`), and say what it is. Raise TokenError, KeyUnavailable, UsageError."""
    where = TokenChoice(configuration=choice.configuration_path(), module=module)
    with where.module_of(output, token) as loaded:
        found = loaded.token(token)
        info = found.info()
        if info.login_required:
            found.login(None if info.pin_pad else ask_password(pin_file, f'PIN of token "{info.label}"', option="--pin-file"))
        output.progress("making a key")
        key = loaded.generate_key(token or info.label, kind, label or kind)
    return {"token": key.token, "label": key.label, "id": key.id.hex(), "key_type": key.key_type, "bits": key.bits}
