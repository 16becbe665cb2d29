"""One PKCS#11 module in this process: an `interfaces.TokenHost`. Commands use it directly; a token host puts it behind a socket.

The one invariant: a name means one token. "HSM 1" is never "HSM 10", and where two tokens have one label nothing is done before it is said
which (by its serial, in a PKCS#11 URI).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from mailsec.errors import KeyUnavailable, TokenError, UsageError
from mailsec.keys.reference import KeyReference, parse_reference
from mailsec.model.tokens import TokenCertificate, TokenInfo, TokenKey, TokenMechanism
from mailsec.model.trust import TrustFlags
from mailsec.tokens import crl_objects, objects, public_keys
from mailsec.tokens.catalogue import read_certificates, read_keys
from mailsec.tokens.codes import PIN_VERDICTS, CkError
from mailsec.tokens.key_export import export_key
from mailsec.tokens.loader import Library, load_library, unload_library
from mailsec.tokens.mechanisms import described
from mailsec.tokens.state import StateDirectory
from mailsec.tokens.token import Token

__all__ = ["Module"]

T = TypeVar("T")

_INITIALISED = 0x400
_NSS_CRYPTO = "NSS Generic Crypto Services"
"""softoken's slot for the ciphers: nothing lies there."""


class Module:
    """A loaded library with its tokens."""

    def __init__(self, name: str, library: str, *, state: StateDirectory, parameters: str | None = None) -> None:
        """Load it. `name` is that of its `[[module]]`; `parameters` NSS's string. Raise ConfigurationError, KeyUnavailable."""
        self.name = name
        self.directory = state
        self._library: Library = load_library(library, parameters, state)
        self._tokens: list[Token] = []
        self._named: dict[str, Token] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Log out and unload."""
        if not self._closed:
            self._closed = True
            for token in self._tokens:
                token.close()
            unload_library(self._library)

    def description(self) -> str:
        """What the library calls itself."""
        return self._asked(self._library.functions.description)

    # -- tokens ------------------------------------------------------------------------------------------------------------------

    def present(self) -> list[Token]:
        """The tokens that are there, blank ones too."""
        functions = self._library.functions
        slots = self._asked(lambda: functions.slots(present=True))
        found = []
        with self._lock:
            for slot in slots:
                try:
                    state = functions.token_info(slot)
                except CkError:  # pulled meanwhile
                    continue
                if self._library.softoken and state.label == _NSS_CRYPTO:
                    continue
                for token in self._tokens:
                    # Blank tokens have neither label nor serial: the slot tells them apart.
                    if token.state[:4] == state[:4] and (state.flags & _INITIALISED or token.slot == slot):
                        break
                else:
                    token = Token(self._library, self.name, slot, state, self.directory)
                    self._tokens.append(token)
                found.append(token)
        return found

    def known(self) -> list[Token]:
        """Tokens that are there, or were and are out now."""
        present = self.present()
        return present + [token for token in self._tokens if token not in present and token.state.flags & _INITIALISED]

    def seen(self) -> list[Token]:
        """Tokens that were seen, without looking again."""
        return list(self._tokens)

    def token(self, name: str) -> Token:
        """The token called `name`: a label, a PKCS#11 URI, or "" where there is one only. Raise UsageError, KeyUnavailable."""
        tokens = [token for token in self.known() if token.state.flags & _INITIALISED]
        if name.lower().startswith("pkcs11:"):
            reference = parse_reference(name)
        else:
            reference = KeyReference(token=name)
        found = [
            token
            for token in tokens
            if reference.matches_token(
                label=token.state.label, manufacturer=token.state.manufacturer, serial=token.state.serial, model=token.state.model
            )
        ]
        if not found:
            seen = ", ".join(repr(token.state.label) for token in tokens) or "no token at all"
            raise KeyUnavailable(
                f"module {self.name!r} has no token {name!r}", hint=f"it shows {seen}", stage=f"token:{reference.token or self.name}"
            )
        if len(found) > 1:
            uris = ", ".join(f"pkcs11:token={token.state.label.replace(' ', '%20')};serial={token.state.serial}" for token in found[:4])
            what = f"has {len(found)} tokens called {name!r}" if reference.token else f"has {len(found)} tokens"
            raise UsageError(f"module {self.name!r} {what}: which one is meant?", hint=f"one of {uris}")
        return found[0]

    def _operating(self, name: str) -> Token:
        """`token`, found once: it looks for itself after a loss."""
        found = self._named.get(name)
        if found is None:
            found = self._named[name] = self.token(name)
        return found

    # -- interfaces.TokenHost ------------------------------------------------------------------------------------------------------

    def tokens(self) -> Sequence[TokenInfo]:
        return tuple(token.info() for token in self.known())

    def mechanisms(self, token: str) -> Sequence[TokenMechanism]:
        one = self.token(token)
        return described(self._asked(lambda: one.functions.mechanisms(one.slot)))

    def login(self, token: str, pin: bytes | None) -> None:
        self.token(token).login(pin)

    def certificates(self, token: str) -> Sequence[TokenCertificate]:
        return read_certificates(self.token(token))

    def keys(self, token: str) -> Sequence[TokenKey]:
        return read_keys(self.token(token))

    def sign(self, token: str, key_id: bytes, operation: str, data: bytes) -> bytes:
        return self._operating(token).sign(key_id, operation, data)

    def decrypt(self, token: str, key_id: bytes, operation: str, data: bytes) -> bytes:
        return self._operating(token).decrypt(key_id, operation, data)

    def derive(self, token: str, key_id: bytes, operation: str, point: bytes) -> bytes:
        return self._operating(token).derive(key_id, operation, point)

    def decapsulate(self, token: str, key_id: bytes, operation: str, ciphertext: bytes) -> bytes:
        return self._operating(token).decapsulate(key_id, operation, ciphertext)

    def encrypt(self, token: str, public_key: bytes, operation: str, data: bytes, *, seconds: float | None = None) -> bytes:
        return public_keys.encrypt(self._operating(token), public_key, operation, data)

    def verify(self, token: str, public_key: bytes, operation: str, data: bytes, signature: bytes, *, seconds: float | None = None) -> bool:
        return public_keys.verify(self._operating(token), public_key, operation, data, signature)

    def generate_key(self, token: str, kind: str, label: str) -> TokenKey:
        return objects.generate_key(self.token(token), kind, label)

    def import_certificate(self, token: str, der: bytes, label: str) -> TokenCertificate:
        one = self.token(token)
        identifier = objects.import_certificate(one, der, label)
        has_key = any(key.id == identifier for key in read_keys(one))
        return TokenCertificate(one.state.label, label, identifier, der, has_key)

    def import_key(self, token: str, private_key: bytes, label: str) -> TokenKey:
        return objects.import_key(self.token(token), private_key, label)

    def export_key(self, token: str, key_id: bytes) -> bytes:
        return export_key(self.token(token), key_id)

    def set_pin(self, token: str, old: bytes | None, new: bytes | None) -> None:
        self.token(token).set_pin(old, new)

    def set_trust(self, token: str, der: bytes, trust: TrustFlags) -> None:
        objects.set_trust(self.token(token), der, trust)

    def rename(self, token: str, der: bytes, label: str) -> None:
        objects.rename_certificate(self.token(token), der, label)

    def delete_certificate(self, token: str, der: bytes) -> None:
        objects.delete_certificate(self.token(token), der)

    def delete_key(self, token: str, key_id: bytes) -> None:
        objects.delete_key(self.token(token), key_id)

    def revocation_lists(self, token: str) -> Sequence[bytes]:
        return crl_objects.read_lists(self.token(token))

    def import_revocation_list(self, token: str, der: bytes, url: str = "") -> None:
        crl_objects.import_list(self.token(token), der, url)

    def revocation_list_url(self, token: str, der: bytes) -> str:
        return crl_objects.url_of_list(self.token(token), der)

    def delete_revocation_list(self, token: str, der: bytes) -> None:
        crl_objects.delete_list(self.token(token), der)

    # -- making a token ------------------------------------------------------------------------------------------------------------

    def init_token(self, slot: int | None, label: str, so_pin: bytes, pin: bytes) -> TokenInfo:
        """Make a token anew in a slot (None: in the first blank one), with the PINs of officer and user. What was on it is gone."""
        functions = self._library.functions
        if slot is None:
            blank = [token.slot for token in self.present() if not token.state.flags & _INITIALISED]
            if not blank:
                raise UsageError(f"module {self.name!r} has no blank token", hint="name the slot of the one to be made anew with --slot")
            slot = blank[0]
        serials = {token.state.serial for token in self.present()}
        with self.directory.lock(f"start {self._library.path}"):
            try:
                functions.init_token(slot, label, so_pin)
                # SoftHSM2 gives it another slot.
                found = [one for one in functions.slots(present=True) if functions.token_info(one).label == label]
                new = [one for one in found if functions.token_info(one).serial not in serials] or [one for one in found if one == slot]
                session = functions.open_session((new or found)[0], writing=True)
                try:
                    functions.login(session, 0, so_pin)
                    functions.init_pin(session, pin)
                    functions.logout(session)
                finally:
                    functions.close_session(session)
            except (CkError, IndexError) as error:
                hint = "the officer's PIN is that of the token as it is" if getattr(error, "code", 0) in PIN_VERDICTS else ""
                raise TokenError(f"slot {slot} cannot be made a token: {error}", hint=hint) from error
        return next(token.info() for token in self.present() if token.slot == (new or found)[0])

    def _asked(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except CkError as error:
            raise KeyUnavailable(
                f"module {self.name!r} does not answer: {error}",
                hint="is its device there, and its daemon running?",
                stage=f"token:{self.name}",
            ) from error
