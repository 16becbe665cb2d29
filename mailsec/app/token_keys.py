"""Keys on tokens as a plugin: a `KeyStore` over the token hosts of all modules.

A key is called "TOKEN:NICKNAME", by the label of its certificate. Which keys an address has is known from what hosts list (also from when
they last ran), so mail for a token that is out waits, and other mail does not. The one invariant (promise 8): a handle is bound to the
address that it was asked for; its host checks that again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mailsec.app.config import Configuration
from mailsec.app.config.tokens import host_socket
from mailsec.app.key_usage import chain_beside, fits
from mailsec.app.modules import known_listing, modules_in_use
from mailsec.errors import KeyUnavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import KeyHandle, Runtime, TokenHost
from mailsec.keys.reference import KeyReference, parse_reference
from mailsec.keys.token_handle import TokenHandle
from mailsec.model.address import Address
from mailsec.model.session import matches_pattern
from mailsec.model.tokens import TokenKey
from mailsec.net.token_client import ListedToken, TokenClient
from mailsec.store.certdb import CertDb
from mailsec.tokens.remote import RemoteModule
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["TokenKeys", "TokenKeysPlugin", "module_of", "token_clients"]

_KEPT_SECONDS: Final = 60.0
_MOST_ANSWERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Own:
    """A key on a token, with one certificate for it."""

    client: TokenClient
    token: ListedToken
    key: TokenKey
    certificate: Certificate
    nickname: str
    patterns: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return f"{self.token.name}:{self.nickname}"

    def assigned(self, usage: str) -> tuple[str, ...]:
        return tuple(pattern for pattern, of in self.patterns if of in ("", usage))

    def is_meant(self, reference: KeyReference) -> bool:
        """Whether a reference means this key."""
        token = self.token
        if reference.module not in ("", self.client.module) or (reference.id and reference.id != self.key.id):
            return False
        if reference.nickname not in ("", self.nickname, self.key.label):
            return False
        if reference.token and not reference.uri:
            return reference.token in (token.name, token.label)
        return reference.matches_token(label=token.label, manufacturer=token.manufacturer, serial=token.serial, model=token.model)


class TokenKeys:
    """Keys of all tokens: a `KeyStore`."""

    name = "tokens"

    def __init__(self, clients: Sequence[TokenClient], runtime: Runtime, signers: Iterable[str] = ()) -> None:
        """`signers` are references that rules name: a key is also offered under the one that means it."""
        self._clients = tuple(clients)
        self._runtime = runtime
        self._signers = tuple((text, parse_reference(text)) for text in signers)
        self._kept: dict[tuple[str, str], tuple[KeyHandle, ...]] = {}
        self._versions: tuple[int, ...] = ()
        self._until = 0.0
        self._own: tuple[_Own, ...] = ()

    async def key(self, reference: str) -> KeyHandle | None:
        """The key that a nickname, "token:nickname" or a PKCS#11 URI means; for the first address that it is assigned to.

        Raise KeyUnavailable where it may be on a token that nobody has looked at yet.
        """
        wanted = parse_reference(reference)
        self._refresh()
        for own in sorted(self._own, key=lambda one: _end(one.certificate), reverse=True):
            if own.is_meant(wanted):
                for_whom = next(iter(own.certificate.addresses), None)
                return self._handle(own, own.name, str(for_whom) if for_whom is not None else "", "sign")
        for client in self._clients:
            if not client.listed:
                raise client.unavailable()
        return None

    async def keys_for(self, address: Address, usage: str) -> Sequence[KeyHandle]:
        """Keys assigned to `address`, newest first. Raise KeyUnavailable where one may be on a token that nobody could look at."""
        self._refresh()
        kept = self._kept.get((address.key, usage))
        if kept is None:
            kept = tuple(self._found(address, usage))
            if len(self._kept) >= _MOST_ANSWERS:
                self._kept.clear()
            self._kept[address.key, usage] = kept
        if not kept:
            self._demand_looked(address)
        return kept

    def _found(self, address: Address, usage: str) -> Iterable[KeyHandle]:
        at = self._runtime.now()
        found = [
            own
            for own in self._own
            if fits(own.certificate, usage, at) and any(matches_pattern(pattern, address) for pattern in own.assigned(usage))
        ]
        found.sort(key=lambda own: (_is_valid(own.certificate, at), _end(own.certificate)), reverse=True)
        for own in found:
            yield self._handle(own, own.name, str(address), usage)
        if usage == "sign":
            for text, reference in self._signers:
                own_meant = next((own for own in found if own.is_meant(reference)), None)
                if own_meant is not None and own_meant.name != text:
                    yield self._handle(own_meant, text, str(address), usage)

    def _demand_looked(self, address: Address) -> None:
        """Raise KeyUnavailable where a key for `address` may be on a token that could not be looked at."""
        for client in self._clients:
            if not client.listed:
                raise client.unavailable()
            for token in client.tokens:
                if not token.settled:
                    raise KeyUnavailable(
                        f"whose keys are on token {token.label!r} is not known yet",
                        hint="see mailsec token list",
                        stage=f"token:{token.label}",
                    )
                # Private keys are not shown before the login; certificates are.
                if not token.usable and token.login_required and not token.keys:
                    for one in token.certificates:
                        if any(named.key == address.key for named in load_certificate(one.der).addresses):
                            why = token.problem or f"token {token.label!r} is not logged in"
                            raise KeyUnavailable(why, hint="see mailsec token list", stage=f"token:{token.label}")

    def _handle(self, own: _Own, name: str, address: str, usage: str) -> TokenHandle:
        client = own.client

        def ask(verb: str, key: TokenKey, operation: str, data: bytes) -> Awaitable[bytes]:
            return client.ask(verb, key, operation, address, data)

        return TokenHandle(
            name,
            own.key,
            ask,
            offered=own.token.offered,
            random=self._runtime.random,
            certificate=own.certificate.der,
            chain=chain_beside(own.certificate, (one.der for one in own.token.certificates)),
            assigned=own.assigned(usage),
            raw_rsa=client.raw_rsa,
        )

    def _refresh(self) -> None:
        """Forget what is out of date: what tokens list has changed, or a certificate may have begun or ended."""
        versions = tuple(client.version for client in self._clients)
        now = self._runtime.monotonic()
        if versions != self._versions:
            self._own = tuple(own for client in self._clients for own in _own_keys(client))
        elif now < self._until:
            return
        self._versions, self._until, self._kept = versions, now + _KEPT_SECONDS, {}


def _own_keys(client: TokenClient) -> Iterable[_Own]:
    for token in client.tokens:
        for key in token.keys:
            for one in token.certificates:
                certificate = load_certificate(one.der)
                # CKA_ID is a name that anybody may have written there: the key itself must be the certificate's.
                if one.id == key.id and certificate.readable and certificate.spki == key.public_key:
                    patterns = token.assigned.get(key.id) or tuple((address.key, "") for address in certificate.addresses)
                    yield _Own(client, token, key, certificate, one.label or key.label or key.id.hex(), patterns)


def _end(certificate: Certificate) -> float:
    return certificate.not_after.timestamp() if certificate.not_after is not None else 0.0


def _is_valid(certificate: Certificate, at: datetime) -> bool:
    begins, ends = certificate.not_before, certificate.not_after
    return begins is not None and ends is not None and begins <= at <= ends


class TokenKeysPlugin:
    """What `app` registers for the modules in use."""

    def __init__(
        self, clients: Sequence[TokenClient], runtime: Runtime, wake: Callable[[str], Awaitable[None]] | None, signers: Iterable[str] = ()
    ) -> None:
        """`wake(need)` has waiting mail tried again."""
        self._clients = tuple(clients)
        self._runtime = runtime
        self._wake = wake
        self.keys = TokenKeys(clients, runtime, signers)

    @hookimpl
    def register_key_stores(self) -> Iterable[TokenKeys]:
        return [self.keys] if self._clients else []

    @hookimpl
    def startup(self) -> None:
        for client in self._clients:
            client.on_back = self._back
            client.start()

    @hookimpl
    def shutdown(self) -> None:
        for client in self._clients:
            client.stop()

    def _back(self, needs: Sequence[str]) -> None:
        if self._wake is not None:
            self._runtime.start(self._wake_all(needs), "wake mail that waits for tokens")

    async def _wake_all(self, needs: Sequence[str]) -> None:
        assert self._wake is not None
        for need in needs:
            await self._wake(need)


def token_clients(configuration: Configuration, database: CertDb, reactor: Any) -> tuple[TokenClient, ...]:
    """A client for the host of each module in use, not started."""
    gateway = configuration.gateway
    return tuple(
        TokenClient(
            reactor,
            module.name,
            host_socket(module, gateway.run_directory),
            call_seconds=module.call_timeout,
            raw_rsa=module.raw_rsa,
            known=known_listing(gateway.state_directory, module.name),
        )
        for module in modules_in_use(configuration.modules, database)
    )


def module_of(configuration: Configuration, database: CertDb) -> Callable[[str], TokenHost]:
    """A function that gives the module of a name, over its host's socket: each time a connection of its own."""
    modules = {module.name: module for module in modules_in_use(configuration.modules, database)}

    def find(name: str) -> TokenHost:
        module = modules.get(name)
        if module is None:
            known = ", ".join(modules) or "none is in use"
            raise KeyUnavailable(f"there is no module called {name!r}", hint=f"[[module]] has: {known}")
        return RemoteModule(name, host_socket(module, configuration.gateway.run_directory), seconds=module.call_timeout)

    return find
