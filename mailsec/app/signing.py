"""Who signs, as the options of a command say it: files with key and certificate, a PKCS#12 file, or a name in the database or on a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailsec.app.files import naming, read_file
from mailsec.app.options import DatabaseChoice, passphrase_from_file
from mailsec.app.output import Output
from mailsec.errors import InputError, KeyUnavailable, PrivateKeyError, UsageError
from mailsec.keys.files import load_certificates, load_pkcs12, load_private_key
from mailsec.keys.software import SoftwareKey
from mailsec.model.address import Address
from mailsec.x509.certificate import load_certificate

if TYPE_CHECKING:
    from mailsec.interfaces import KeyHandle
    from mailsec.model.trust import CertificateEntry
    from mailsec.store.certdb import CertDb
    from mailsec.store.nssdb import NssDb

__all__ = ["SignerChoice", "find_signer", "secret_option"]


@dataclass(frozen=True, slots=True)
class SignerChoice:
    """What `--key`, `--cert`, `--chain`, `--p12`, `--signer` and `--pin-file` said."""

    key: str = ""
    certificate: str = ""
    chain: Sequence[str] = ()
    p12: str = ""
    nickname: str = ""
    key_passphrase: bytes | None = None
    p12_passphrase: bytes | None = None
    pin_file: str = ""


def secret_option(output: Output, database: DatabaseChoice, name: str, literal: str, file: str) -> bytes | None:
    """The secret of `--NAME` or `--NAME-file`. The literal one is for test data: it warns, and is refused with a configuration."""
    if literal and file:
        raise UsageError(f"--{name} and --{name}-file exclude each other")
    if literal:
        if database.configuration:
            raise UsageError(f"--{name} is for test data only", hint=f"use --{name}-file with a configuration")
        output.warning(f"--{name} shows the secret in the process list", f"use --{name}-file for real ones")
        return literal.encode()
    return passphrase_from_file(file).encode() if file else None


def find_signer(output: Output, choice: SignerChoice, database: DatabaseChoice, sender: Address | None) -> KeyHandle:
    """The key that signs, with its certificate and chain. Raise UsageError, InputError or KeyUnavailable."""
    ways = [bool(choice.key or choice.certificate), bool(choice.p12), bool(choice.nickname)]
    if sum(ways) > 1:
        raise UsageError("one signer at a time", hint="--key with --cert, or --p12, or --signer")
    if choice.p12:
        return _from_pkcs12(choice)
    if choice.key or choice.certificate:
        return _from_files(choice)
    if database.configuration or database.database:
        return _from_database(output, choice.nickname, database, sender, choice.pin_file)
    raise UsageError("nobody to sign was named", hint="--key FILE --cert FILE, or --p12 FILE, or --signer NICKNAME with -c or -d")


def _from_files(choice: SignerChoice) -> SoftwareKey:
    if not choice.key or not choice.certificate:
        raise UsageError("--key and --cert need each other")
    with naming(choice.key, "" if choice.key_passphrase else "a pass phrase is given with --password-file FILE"):
        private_key = load_private_key(read_file(choice.key), choice.key_passphrase)
    certificates = _certificates(choice.certificate)
    chain = [*certificates[1:], *(der for path in choice.chain for der in _certificates(path))]
    return _checked(SoftwareKey(choice.certificate, private_key, certificate=certificates[0], chain=tuple(chain)))


def _certificates(path: str) -> Sequence[bytes]:
    with naming(path):
        certificates = load_certificates(read_file(path))
    if not certificates:
        raise InputError(f"{path} holds no certificate", stage="read")
    return certificates


def _from_pkcs12(choice: SignerChoice) -> SoftwareKey:
    try:
        store = load_pkcs12(read_file(choice.p12), choice.p12_passphrase)
    except PrivateKeyError as error:
        hint = error.hint if choice.p12_passphrase is not None else "give its password with --p12-password-file FILE"
        raise PrivateKeyError(f"{choice.p12}: {error.message}", hint=hint) from None
    usable = [key for key in store.keys if key.certificate is not None]
    if not usable:
        raise InputError(f"{choice.p12} holds no key with a certificate", stage="read")
    key = usable[0]
    chain = tuple(der for _, der in store.certificates)
    return _checked(SoftwareKey(key.name or choice.p12, key.private_key, certificate=key.certificate, chain=chain))


def _from_database(output: Output, nickname: str, choice: DatabaseChoice, sender: Address | None, pin_file: str) -> KeyHandle:
    """A key of the database, or of the tokens of its modules and of the configuration's."""
    from mailsec.app.nss_databases import is_nss, keys_in_use
    from mailsec.app.token_signers import TokenModules, signer_on_token
    from mailsec.store.certdb import CertDb

    at, location = datetime.now(UTC), choice.location()
    by_name = nickname not in ("", "from")
    if not by_name and sender is None:
        raise UsageError("the message has no single From address to find a key for", hint="name one with --signer NICKNAME")

    def wanted(database: CertDb | NssDb) -> Sequence[CertificateEntry]:
        return database.find(nickname, at=at) if by_name or sender is None else database.assigned_to(sender, "sign", at=at)

    if is_nss(location):
        if handles := keys_in_use(output, choice, wanted):
            return handles[0]
    else:
        with CertDb.open(location, password=choice.passphrase().encode()) as database:
            for entry in wanted(database):
                private_key = database.private_key(entry) if entry.verified and entry.has_key else None
                if private_key is not None:
                    return SoftwareKey(entry.nickname, private_key, certificate=entry.der, chain=database.chain(entry))
            tokens = TokenModules.of(choice, database, pin_file)
        # The database is closed: from here on a library may be loaded.
        handle = signer_on_token(output, tokens, nickname if by_name else "", sender)
        if handle is not None:
            return handle
    missing = f'no certificate with a key called "{nickname}"' if by_name else f"no key for {sender}"
    raise KeyUnavailable(
        f"there is {missing} in {location}",
        hint='"mailsec cert list" and "token list" show what there is; "cert issue" and "p12 import" bring keys',
    )


def _checked(key: SoftwareKey) -> SoftwareKey:
    assert key.certificate is not None
    certificate = load_certificate(key.certificate)
    if not certificate.readable:
        raise InputError("the certificate cannot be read", stage="read")
    return key
