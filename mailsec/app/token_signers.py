"""Keys on tokens for commands that sign or open a message: those of a running mailsec's hosts, and otherwise of modules that are loaded here.

Certificates are looked at first, as anybody may read them; a PIN then goes to the one token that has the key that is meant. The one
invariant: no PIN is tried on a token that it was not meant for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from mailsec.app.databases import ask_password
from mailsec.app.key_usage import chain_beside, fits
from mailsec.app.library_child import go_on_in_child
from mailsec.app.modules import load_module, modules_in_use
from mailsec.app.options import DatabaseChoice
from mailsec.app.output import Output
from mailsec.errors import KeyUnavailable, MailsecError, UsageError
from mailsec.keys.reference import KeyReference, parse_reference
from mailsec.keys.token_handle import TokenHandle
from mailsec.model.tokens import TokenCertificate, TokenInfo, TokenKey
from mailsec.x509.certificate import Certificate, load_certificate

if TYPE_CHECKING:
    from mailsec.app.config import Configuration
    from mailsec.app.config.models import Module as ModuleSettings
    from mailsec.model.address import Address
    from mailsec.store.certdb import CertDb

__all__ = ["TokenModules", "keys_that_open", "signer_on_token"]


@dataclass(frozen=True, slots=True)
class TokenModules:
    """The modules in use of a configuration or of a database, and where PINs come from."""

    modules: Sequence[ModuleSettings]
    configuration: Configuration | None
    pin_file: str = ""

    @classmethod
    def of(cls, choice: DatabaseChoice, database: CertDb, pin_file: str) -> TokenModules:
        """As the configuration says, or the database alone where only that was named."""
        from mailsec.app.config import load_configuration

        configuration = None if choice.database else load_configuration(choice.configuration_path())
        return cls(modules_in_use(() if configuration is None else configuration.modules, database), configuration, pin_file)

    def pin(self, output: Output, info: TokenInfo) -> bytes | None:
        """The PIN of a token; None where it is typed at the reader. Raise UsageError where there is none to be had."""
        from mailsec.app.passphrase import pin_source

        if info.pin_pad:
            output.progress("type the PIN at the reader")
            return None
        if not self.pin_file and self.configuration is not None:
            with suppress(MailsecError):  # the source knows others only: whoever sits there is asked
                if (found := pin_source(self.configuration.passphrase, info.label)) is not None:
                    return found
        return ask_password(self.pin_file, f'PIN of token "{info.label}"', option="--pin-file")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A token that is there."""

    module: str
    info: TokenInfo
    certificates: Sequence[TokenCertificate]
    private_keys: Callable[[], Sequence[TokenKey]]
    """They are seen once somebody is logged in."""
    login: Callable[[], None] | None
    """None: a running mailsec is logged in, or is not."""
    offered: Callable[[], Iterable[str]]
    ask: Callable[[str, TokenKey, str, str, bytes], bytes]
    """verb, key, operation, address, octets."""

    def is_meant(self, reference: KeyReference) -> bool:
        info = self.info
        return reference.module in ("", self.module) and reference.matches_token(
            label=info.label, manufacturer=info.manufacturer, serial=info.serial, model=info.model
        )


@dataclass(frozen=True, slots=True)
class _Own:
    """A certificate on a token whose key may be there, too."""

    token: _Seen
    label: str
    id: bytes
    certificate: Certificate


def signer_on_token(output: Output, tokens: TokenModules, name: str, sender: Address | None) -> TokenHandle | None:
    """The key that `name` means ("token:nickname", a PKCS#11 URI, or a nickname), or without a name the newest one of `sender`; None where no
    token has it. Raise UsageError where several are meant by a name, KeyUnavailable, TokenError.
    """
    at = datetime.now(UTC)
    reference = parse_reference(name) if name else None
    seen = _seen(output, tokens)
    found = []
    for own in _own(seen):
        certificate = own.certificate
        if reference is not None:
            # The label may be the key's, which is not seen before the login.
            named = bool(reference.token) or reference.nickname in ("", own.label)
            meant = own.token.is_meant(reference) and reference.id in (b"", own.id) and named
        else:
            meant = sender is not None and any(one.key == sender.key for one in certificate.addresses)
        if meant and fits(certificate, "sign", at):
            found.append(own)
    found.sort(key=lambda own: own.certificate.not_after or at, reverse=True)
    if reference is not None and len({(own.token.info.serial, own.token.info.label) for own in found}) > 1:
        uris = [KeyReference(own.label, own.token.info.label, own.id, {"serial": own.token.info.serial}, uri=True) for own in found[:4]]
        raise UsageError(f"{name!r} is on several tokens: which one is meant?", hint=f"name one: {' or '.join(map(str, uris))}")
    # A PIN goes to one token.
    for own in [own for own in found if own.token is found[0].token]:
        if (handle := _handle(own, sender, "" if reference is None else reference.nickname)) is not None:
            return handle
    if reference is not None and reference.token and not any(one.is_meant(reference) for one in seen):
        shown = ", ".join(repr(one.info.label) for one in seen) or "no token at all"
        raise KeyUnavailable(f"there is no token for {name!r}", hint=f"the modules show {shown}", stage="token")
    return None


def keys_that_open(output: Output, tokens: TokenModules) -> list[TokenHandle]:
    """All keys that have a certificate beside them on a token whose PIN is to be had. The others are said."""
    seen = [one for one in _seen(output, tokens) if any(own.token is one for own in _own([one]))]
    if tokens.pin_file and sum(1 for one in seen if one.login is not None and one.info.login_required) > 1:
        names = ", ".join(repr(one.info.label) for one in seen)
        raise UsageError(
            f"--pin-file holds one PIN, and there are several tokens: {names}", hint="say in [passphrase] where their PINs are"
        )
    found: list[TokenHandle] = []
    for one in seen:
        try:
            found += [handle for own in _own([one]) if (handle := _handle(own, None)) is not None]
        except MailsecError as error:
            output.warning(f"the keys of token {one.info.label!r} are not used: {error.message}", error.hint)
    return found


def _handle(own: _Own, sender: Address | None, nickname: str = "") -> TokenHandle | None:
    token, certificate = own.token, own.certificate
    if token.login is not None and token.info.login_required:
        token.login()
    # CKA_ID is a name that anybody may have written there: the key itself must be the certificate's.
    found = next((one for one in token.private_keys() if one.id == own.id and one.public_key == certificate.spki), None)
    if found is None or nickname not in ("", own.label, found.label):
        return None
    address = str(sender or next(iter(certificate.addresses), ""))

    async def ask(verb: str, key: TokenKey, operation: str, data: bytes) -> bytes:
        return token.ask(verb, key, operation, address, data)

    chain = chain_beside(certificate, [one.der for one in token.certificates])
    name = f"{token.info.label}:{own.label or found.label or found.id.hex()}"
    return TokenHandle(name, found, ask, offered=set(token.offered()), random=os.urandom, certificate=certificate.der, chain=chain)


def _own(seen: Sequence[_Seen]) -> Iterable[_Own]:
    for token in seen:
        for one in token.certificates:
            certificate = load_certificate(one.der)
            basic = certificate.basic_constraints
            if certificate.readable and one.id and not (basic is not None and basic.ca):
                yield _Own(token, one.label, one.id, certificate)


def _seen(output: Output, tokens: TokenModules) -> list[_Seen]:
    """The tokens of all modules; those of a running mailsec are asked of its hosts. A module that does not answer is said, and passed over."""
    from mailsec.app.token_choice import own_state

    found: list[_Seen] = []
    state = own_state() if tokens.configuration is None else tokens.configuration.gateway.state_directory
    for module in tokens.modules:
        try:
            served = _served(tokens, module)
            found += _loaded(output, tokens, module, state) if served is None else served
        except MailsecError as error:
            output.warning(f"module {module.name!r} is not used: {error.message}", error.hint)
    return found


def _served(tokens: TokenModules, module: ModuleSettings) -> list[_Seen] | None:
    """What the host of a running mailsec has; None where none runs."""
    from mailsec.app.config.tokens import host_socket
    from mailsec.tokens.remote import RemoteModule, certificate_of, key_of

    if tokens.configuration is None:
        return None
    path = host_socket(module, tokens.configuration.gateway.run_directory)
    if not os.path.exists(path):  # noqa: PTH110 - a socket's path, as the host has it
        return None
    host = RemoteModule(module.name, path, seconds=module.call_timeout)
    try:
        rows = host.listing()
    except MailsecError:
        host.close()
        return None
    click.get_current_context().call_on_close(host.close)

    def seen(row: dict[str, Any], info: TokenInfo) -> _Seen:
        name = row["name"]
        return _Seen(
            module.name,
            info,
            [certificate_of(name, one) for one in row["certificates"]],
            lambda: [key_of(name, one) for one in row["keys"]],
            None,
            lambda: row["mechanisms"],
            lambda verb, key, operation, address, data: getattr(host, verb)(name, key.id, operation, data, address),
        )

    return [seen(row, info) for row, info in zip(rows, host.tokens(), strict=True)]


def _loaded(output: Output, tokens: TokenModules, module: ModuleSettings, state: str) -> list[_Seen]:
    from mailsec.tokens.catalogue import read_certificates, read_keys
    from mailsec.tokens.token import Token

    if not (module.library or module.nss):
        raise KeyUnavailable("its token host does not run", hint="systemd starts it: systemctl status")
    go_on_in_child()
    loaded = load_module(module, state, read_only=True)
    click.get_current_context().call_on_close(loaded.close)

    def seen(token: Token, info: TokenInfo) -> _Seen:
        def login() -> None:
            if not token.logged_in():
                token.login(tokens.pin(output, info))

        def ask(verb: str, key: TokenKey, operation: str, _: str, data: bytes) -> bytes:
            answer: bytes = getattr(token, verb)(key.id, operation, data)
            return answer

        return _Seen(module.name, info, read_certificates(token), lambda: read_keys(token), login, token.offered, ask)

    return [seen(token, info) for token in loaded.present() if (info := token.info()).initialised]
