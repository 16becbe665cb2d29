"""What the commands about revocation take: a certificate by file or nickname, and the `[revocation]` of a configuration, if one is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mailsec.app.options import DatabaseChoice
from mailsec.app.output import Output
from mailsec.errors import CertificateError, InputError
from mailsec.model.settings import RevocationSettings

if TYPE_CHECKING:
    from mailsec.x509.certificate import Certificate

__all__ = ["certificate_of", "revocation_of"]


def revocation_of(database: DatabaseChoice) -> RevocationSettings:
    """The settings of the configuration that `-c` names; without one the defaults."""
    if not database.configuration:
        return RevocationSettings()
    from mailsec.app.config import gateway_settings, load_configuration

    return gateway_settings(load_configuration(database.configuration)).revocation


def certificate_of(output: Output, place: str, database: DatabaseChoice) -> Certificate:
    """The first certificate in the file `place`; where there is no such file, the one of that nickname."""
    from mailsec.app.path_inputs import read_ders
    from mailsec.x509.certificate import load_certificate

    if Path(place).exists():
        certificate = load_certificate(read_ders(place)[0])
    elif database.configuration or database.database:
        from mailsec.app.databases import entries_called, open_any

        with open_any(output, database, look=True) as opened:
            certificate = load_certificate(entries_called(opened, place)[0].der)
    else:
        raise InputError(f"there is no file {place}", hint="name a file, or a nickname and its database with -d", stage="parse")
    if not certificate.readable:
        raise CertificateError(certificate.problems[0].message, hint=certificate.problems[0].hint, stage="parse")
    return certificate
