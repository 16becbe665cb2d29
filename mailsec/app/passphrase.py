"""Where the pass phrase of the database comes from when nobody types it: `[passphrase]`."""

from __future__ import annotations

import os
from pathlib import Path

from mailsec.app.config.models import Passphrase
from mailsec.app.options import passphrase_from_file
from mailsec.errors import ConfigurationError

__all__ = ["CREDENTIAL", "passphrase_source"]

CREDENTIAL = "mailsec-passphrase"
"""The name of the systemd credential (LoadCredential=mailsec-passphrase:…)."""


def passphrase_source(settings: Passphrase) -> str | None:
    """The pass phrase, or None where somebody must be asked; raise where the configured place has none."""
    if settings.method == "file":
        return passphrase_from_file(settings.file)
    if settings.method == "systemd":
        # systemd.exec(5): credentials are files below $CREDENTIALS_DIRECTORY that only this unit can read.
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ConfigurationError(
                "systemd gave no credentials",
                hint=f"add LoadCredential={CREDENTIAL}:FILE to the unit, or set another method in [passphrase]",
                stage="passphrase",
            )
        return passphrase_from_file(str(Path(directory) / CREDENTIAL))
    return None
