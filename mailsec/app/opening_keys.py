"""With what encrypted messages are opened, as the options of commands say it: files with keys, PKCS#12 files, passwords, shared keys,
and the keys of a database and of tokens.

The one invariant: a key is used under a certificate that it belongs to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from mailsec.app.options import DatabaseChoice
from mailsec.errors import InputError, PrivateKeyError, UsageError

if TYPE_CHECKING:
    from mailsec.app.output import Output
    from mailsec.cms.decrypt import SecretKey
    from mailsec.interfaces import KeyHandle
    from mailsec.keys.software import SoftwareKey

__all__ = ["KeyInputs", "OpeningKeys", "key_options"]

F = TypeVar("F", bound=Callable[..., Any])


class OpeningKeys(NamedTuple):
    """What `unprotect_message` is given."""

    handles: list[KeyHandle]
    passwords: list[bytes]
    secret_keys: list[SecretKey]


@dataclass(frozen=True, slots=True)
class KeyInputs:
    """What the options said."""

    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    p12: tuple[str, ...] = ()
    kek_file: str = ""
    password_file: str = ""
    password: str = field(default="", repr=False)
    p12_password_file: str = ""
    p12_password: str = field(default="", repr=False)
    pin_file: str = ""

    def read(self, output: Output, database: DatabaseChoice, *, stored: bool = True) -> OpeningKeys:
        """Read the files, and the keys of a database and its tokens where one was named and `stored` is True. Raise UsageError, InputError."""
        from mailsec.app.files import read_file
        from mailsec.app.signing import secret_option
        from mailsec.cms.decrypt import SecretKey

        password = secret_option(output, database, "password", self.password, self.password_file)
        p12_password = secret_option(output, database, "p12-password", self.p12_password, self.p12_password_file)
        if self.certificates and len(self.certificates) != len(self.keys):
            raise UsageError("every --key needs its --cert", hint="in the same order; or one file that holds both, with --key alone")
        handles: list[KeyHandle] = [
            _from_files(path, certificate, password)
            for path, certificate in zip(self.keys, self.certificates or self.keys, strict=True)
        ]  # fmt: skip
        for path in self.p12:
            handles += _from_pkcs12(path, p12_password)
        if stored and (database.configuration or database.database):
            handles += _from_database(output, database, self.pin_file)
        secret_keys = [SecretKey(_secret(read_file(self.kek_file), self.kek_file))] if self.kek_file else []
        return OpeningKeys(handles, [] if password is None else [password], secret_keys)


def key_options(command: F) -> F:
    """Add the options; the command gets them as one argument `opening`, a KeyInputs."""

    @click.option("--key", "keys", metavar="FILE", multiple=True, help="A private key that opens messages; may be repeated.")
    @click.option("--cert", "certificates", metavar="FILE", multiple=True, help="Its certificate  [default: in the file of --key]")
    @click.option("--p12", metavar="FILE", multiple=True, help="A PKCS#12 file with keys that open messages; may be repeated.")
    @click.option("--kek-file", metavar="FILE", default="", help="A key that both sides share, as octets or in hexadecimal.")
    @click.option("--password-file", metavar="FILE", default="", help="The password of the message, or the pass phrase of --key.")
    @click.option("--password", metavar="X", default="", help="The same, for test data only.")
    @click.option("--p12-password-file", metavar="FILE", default="", help="The pass phrase of --p12.")
    @click.option("--p12-password", metavar="X", default="", help="The same, for test data only.")
    @click.option("--pin-file", metavar="FILE", default="", help="The PIN of the token of -c or -d  [default: as [passphrase] says]")
    @functools.wraps(command)
    def with_keys(*args: Any, **kwargs: Any) -> Any:
        names = ("keys", "certificates", "p12", "kek_file", "password_file", "password", "p12_password_file", "p12_password", "pin_file")
        return command(*args, opening=KeyInputs(**{name: kwargs.pop(name) for name in names}), **kwargs)

    return with_keys  # type: ignore[return-value]  # click's decorators keep the callable, mypy sees the wrapper's type


def _from_files(path: str, certificate: str, passphrase: bytes | None) -> SoftwareKey:
    from mailsec.app.files import naming, read_file
    from mailsec.keys.files import load_certificates, load_private_key
    from mailsec.keys.software import SoftwareKey

    with naming(path, "" if passphrase else "a pass phrase is given with --password-file FILE"):
        private_key = load_private_key(read_file(path), passphrase)
    with naming(certificate):
        found = load_certificates(read_file(certificate))
    key = SoftwareKey(path, private_key)
    for der in found:
        if key.belongs_to(der):
            return SoftwareKey(path, private_key, certificate=der)
    raise InputError(f"the key in {path} does not belong to a certificate in {certificate}", stage="read")


def _from_pkcs12(path: str, passphrase: bytes | None) -> list[SoftwareKey]:
    from mailsec.app.files import read_file
    from mailsec.keys.files import load_pkcs12
    from mailsec.keys.software import SoftwareKey

    try:
        store = load_pkcs12(read_file(path), passphrase)
    except PrivateKeyError as error:
        hint = error.hint if passphrase is not None else "give its password with --p12-password-file FILE"
        raise PrivateKeyError(f"{path}: {error.message}", hint=hint) from None
    found = [SoftwareKey(key.name or path, key.private_key, certificate=key.certificate) for key in store.keys if key.certificate]
    if not found:
        raise InputError(f"{path} holds no key with a certificate", stage="read")
    return found


def _from_database(output: Output, choice: DatabaseChoice, pin_file: str) -> list[KeyHandle]:
    from mailsec.app.nss_databases import is_nss, keys_in_use
    from mailsec.app.token_signers import TokenModules, keys_that_open
    from mailsec.keys.software import SoftwareKey
    from mailsec.store.certdb import CertDb

    location = choice.location()
    if is_nss(location):
        return keys_in_use(output, choice, lambda database: database.entries())
    found: list[KeyHandle] = []
    with CertDb.open(location, password=choice.passphrase().encode()) as database:
        for entry in database.entries():
            private_key = database.private_key(entry) if entry.verified and entry.has_key else None
            if private_key is not None:
                found.append(SoftwareKey(entry.nickname, private_key, certificate=entry.der))
        tokens = TokenModules.of(choice, database, pin_file)
    # The database is closed: from here on a library may be loaded.
    return [*found, *keys_that_open(output, tokens)]


def _secret(data: bytes, path: str) -> bytes:
    """Octets of the length of a key, or the same in hexadecimal."""
    sizes = (5, 8, 16, 24, 32)
    if len(data) in sizes:
        return data
    try:
        secret = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) not in sizes:
        raise InputError(f"{path} holds no key: 16, 24 or 32 octets, or the same in hexadecimal", stage="read")
    return secret
