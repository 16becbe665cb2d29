"""A directory with certificates and keys in PEM, as ACME clients and administrators leave them: `file:DIR`.

Files are matched by what is in them, never by their names: a key goes with the newest certificate that has it, and its chain is found
among the other certificates there. The one invariant: a directory that cannot be read as a whole gives an error and nothing else, so
that a file which is being written replaces nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mailsec.errors import ConfigurationError, MailsecError
from mailsec.keys.files import load_certificates, load_private_key
from mailsec.net.tls_context import OwnCertificate
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec.x509.issue import public_key_of

__all__ = ["State", "open_keys", "read_directory", "state_of"]

_MOST_FILES = 64
_FILE_OCTETS = 256 * 1024
_CHAIN = 8

State = tuple[tuple[str, int, int, int], ...]
"""What shows that a directory was changed: name, time, size and inode of each file."""


def state_of(directory: str) -> State:
    """The state of `directory` now; empty where it cannot be read."""
    try:
        return tuple((path.name, facts.st_mtime_ns, facts.st_size, facts.st_ino) for path in _files(directory) for facts in (path.stat(),))
    except (OSError, MailsecError):
        return ()


def read_directory(name: str, directory: str, at: datetime) -> Sequence[OwnCertificate]:
    """All certificates in `directory` that have a key there, by the names of their files; raise ConfigurationError."""
    certificates: list[Certificate] = []
    keys: list[bytes] = []
    try:
        for path in _files(directory):
            data = path.read_bytes()
            if b"-----BEGIN " not in data:
                continue
            if b"CERTIFICATE-----" in data:
                certificates += map(load_certificate, load_certificates(data))
            if b"PRIVATE KEY-----" in data:
                keys.append(load_private_key(data))
    except OSError as error:
        raise ConfigurationError(f"cannot read {error.filename or directory}: {(error.strerror or '').lower()}", stage="tls") from error
    except ConfigurationError:
        raise
    except MailsecError as error:
        raise ConfigurationError(f"{directory}: {path.name}: {error.message}", hint=error.hint, stage="tls") from error
    found = [own for key in dict.fromkeys(keys) for own in _with_key(name, key, certificates, at)]
    if not found:
        raise ConfigurationError(
            f"{directory} holds no certificate together with its private key", hint="PEM files, as certbot writes them", stage="tls"
        )
    return found


def open_keys(directory: str) -> Sequence[str]:
    """Files with private keys that others may read."""
    try:
        return [
            str(path)
            for path in _files(directory)
            if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH) and b"PRIVATE KEY" in path.read_bytes()
        ]
    except (OSError, MailsecError):
        return []


def _files(directory: str) -> Sequence[Path]:
    files = [path for path in sorted(Path(directory).iterdir()) if not path.name.startswith(".") and path.is_file()]
    if len(files) > _MOST_FILES:
        raise ConfigurationError(f"{directory} holds more than {_MOST_FILES} files", hint="name a directory of its own", stage="tls")
    return [path for path in files if path.stat().st_size <= _FILE_OCTETS]


def _with_key(name: str, key: bytes, certificates: Sequence[Certificate], at: datetime) -> Sequence[OwnCertificate]:
    public = public_key_of(key)
    fitting = [one for one in certificates if one.spki == public and one.not_before is not None and one.not_after is not None]
    if not fitting:
        return []
    newest = max(fitting, key=lambda one: (_valid(one, at), one.not_before))
    return [OwnCertificate(name, newest.der, key, _chain(newest, certificates))]


def _valid(certificate: Certificate, at: datetime) -> bool:
    begins, ends = certificate.not_before, certificate.not_after
    return begins is not None and ends is not None and begins <= at <= ends


def _chain(below: Certificate, certificates: Sequence[Certificate]) -> tuple[bytes, ...]:
    chain: list[bytes] = []
    while len(chain) < _CHAIN and not below.is_self_issued:
        wanted = below.authority_key_id.key_id if below.authority_key_id else None
        above = next(
            (
                one
                for one in certificates
                if one.subject.key == below.issuer.key and one.der not in chain and (wanted is None or one.subject_key_id in (None, wanted))
            ),
            None,
        )
        if above is None:
            break
        chain.append(above.der)
        below = above
    return tuple(chain)
