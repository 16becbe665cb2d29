"""What a token host does for those who ask: for whom a key is used, how often, and what is written about it; who is logged in, and what is out.

The one invariant (promise 8): a key is used for an address only that it is assigned to: by the database, or else by its own certificate.
Whoever asks is not believed about that; a worker that was taken over signs for nobody else.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mailsec.errors import AddressError, ConfigurationError, CryptoError, KeyUnavailable, MailsecError, TokenError
from mailsec.keys.frames import Verb
from mailsec.keys.reference import KeyReference, parse_reference
from mailsec.model.address import Address
from mailsec.model.tokens import TokenCertificate, TokenKey
from mailsec.rules.conditions import Addresses
from mailsec.tokens import public_keys
from mailsec.tokens.catalogue import read_certificates, read_keys
from mailsec.tokens.given import GivenCertificate, given_certificates, given_rows, joined
from mailsec.tokens.module import Module
from mailsec.tokens.sessions import INITIALISED, LOGIN_REQUIRED
from mailsec.tokens.state import MOST_FAILURES
from mailsec.tokens.token import Token
from mailsec.x509.certificate import load_certificate

__all__ = ["Desk", "Record"]

_LISTED_SECONDS: Final = 60.0
_KNOWN_ADDRESSES: Final = 10_000
_REMEMBERED_DAYS: Final = 30
"""A token that was away for longer is forgotten."""


_SETTLE_SECONDS: Final = 120.0
"""How long after a token was put in mail waits until it is known whose keys are on it: a token that never says holds nothing up for ever."""
_NOBODY = ("", "")
"""A pattern that no address fits."""


class Record(Protocol):
    """Writes a line of the log: an event, and its fields."""

    def __call__(self, event: str, **fields: object) -> object: ...


@dataclass(slots=True)
class _Use:
    """One key, and for whom it may be used."""

    token: Token
    name: str
    patterns: Mapping[str, Addresses]
    """By usage: "sign", "decrypt"."""
    known: set[tuple[str, str]] = field(default_factory=set)
    """(usage, address) that were looked up and are right."""


class Desk:
    """One module, as a host serves it. Several threads call `perform`; `configure`, `login`, `look` and `listing` are for one."""

    def __init__(
        self,
        module: Module,
        record: Record,
        *,
        audit: Record | None = None,
        keep: Callable[[Mapping[str, Any]], object] | None = None,
        known: Mapping[str, Any] | None = None,
        uses_per_minute: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`audit` tells of each use of a key (None: as `record`).

        `keep` is called with what there is whenever that has changed, and `known` is what it was called with last."""
        self.module = module
        self._record = record
        self._audit = audit or record
        self._keep = keep
        self._uses_per_minute = uses_per_minute
        self._monotonic = monotonic
        self._clock = clock
        self._pins: dict[str, bytes | None] = {}
        self._proven: set[str] = set()
        self._assigned: dict[str, list[tuple[str, str]]] | None = {}
        self._given: tuple[GivenCertificate, ...] = ()
        self._looked_up: frozenset[str] | None = frozenset()
        """Keys (SHA-256 of SubjectPublicKeyInfo) of which the supervisor has said whose they are; None: one that says it of none."""
        self._without_pin: frozenset[str] = frozenset()
        """Tokens that nobody has a PIN for."""
        self._seen_at: dict[str, float] = {}
        self._uses: dict[tuple[bytes, bytes], _Use] = {}
        self._buckets: dict[str, tuple[float, float]] = {}
        self._bucket_lock = threading.Lock()
        self._usable: set[str] = set()
        self._listing: dict[str, Any] = {"tokens": list(known["tokens"]) if known is not None else []}
        self._listed_at = float("-inf")

    # -- for the supervisor ------------------------------------------------------------------------------------------------------

    def configure(self, value: Mapping[str, Any]) -> None:
        """PINs by token (a label, or a PKCS#11 URI; None: at the pin pad), those that were right before, and who is assigned to which key."""
        pins = value.get("pins")
        if isinstance(pins, dict):
            self._pins = {name: None if pin is None else base64.b64decode(pin) for name, pin in pins.items()}
            self._proven = set(value.get("proven", ()))
        if "assigned" in value:
            assigned = value["assigned"]
            # Attack: a database whose assignments cannot be believed must not make a key one for whom its certificate names.
            self._assigned = (
                {key_id: [(str(pattern), str(usage)) for pattern, usage in rows] for key_id, rows in assigned.items()}
                if isinstance(assigned, dict)
                else None
            )
            self._listed_at = float("-inf")
        if "certificates" in value:
            self._given = given_certificates(value["certificates"])
            known = value.get("known")
            self._looked_up = frozenset(map(str, known)) if isinstance(known, list) else None
            self._listed_at = float("-inf")
        if isinstance(value.get("without_pin"), list):
            self._without_pin = frozenset(map(str, value["without_pin"]))
            self._listed_at = float("-inf")

    def login(self, name: str, pin: bytes | None) -> str:
        """Somebody has typed a PIN: try it once, and lift the mark if it is right; what the token is called here.

        Raise TokenError, KeyUnavailable, UsageError.
        """
        token = self.module.token(name)
        mark = self.module.directory.mark(token.state, token.place)
        if mark is not None and mark.failures >= MOST_FAILURES:
            # Attack: a worker that was taken over says that it is a person, and blocks the card.
            hint = f'stop mailsec, and log in by hand: mailsec token login "{token.state.label}"'
            raise TokenError(f"{mark.failures} wrong PINs were given to token {token.state.label!r}", hint=hint, stage=token.stage)
        if token.logged_in() and not token.problem:
            raise TokenError(f"token {token.state.label!r} is logged in already", hint="nothing was tried", stage=token.stage)
        token.login(pin, person=True)
        self._record("logged in by hand", token=token.state.label)
        self._pins[self.reference(token)] = pin
        self._proven.add(self.reference(token))
        self._listed_at = float("-inf")
        return self.reference(token)

    # -- what there is -----------------------------------------------------------------------------------------------------------

    def look(self) -> dict[str, Any] | None:
        """Look which tokens are there, log in where that is allowed; what has changed since: {"back": […], "out": […]}, or None."""
        usable = set()
        for token in self._tokens():
            name = self.reference(token)
            if self._ready(token, name):
                usable.add(name)
        back, out = sorted(usable - self._usable), sorted(self._usable - usable)
        self._usable = usable
        for name in out:
            self._record("token is out", token=name)
        for name in back:
            self._record("token is ready", token=name)
        before = self._listing
        if back or out or self._monotonic() > self._listed_at + _LISTED_SECONDS:
            self._list()
        if not back and not out and self._listing == before:
            return None
        if self._keep is not None:
            self._keep(self._listing)
        return {"back": back, "out": out}

    def _tokens(self) -> list[Token]:
        return [token for token in self.module.known() if token.state.flags & INITIALISED]

    def _ready(self, token: Token, name: str) -> bool:
        if token.problem:
            return False
        found, pin = self._pin(token)
        try:
            if not token.state.flags & LOGIN_REQUIRED or not found:
                token.probe()
                return not token.state.flags & LOGIN_REQUIRED
            if not token.logged_in():
                token.login(pin, proven=name in self._proven)
                self._proven.add(name)
            return True
        except TokenError as error:
            token.take_out(error.message)
            self._record("token is out of service", token=name, reason=error.message, hint=error.hint)
        except KeyUnavailable:
            pass
        return False

    def _pin(self, token: Token) -> tuple[bool, bytes | None]:
        """Whether there is a PIN for this token, and which. Names match exactly; two tokens with one label have none by this label."""
        names = [self.reference(token)] if self.reference(token) in self._pins else [name for name in self._pins if _means(name, token)]
        return (True, self._pins[names[0]]) if len(names) == 1 else (False, None)

    def reference(self, token: Token) -> str:
        """The label, or a PKCS#11 URI with the serial where another token has the same label."""
        state = token.state
        alike = [other for other in self.module.seen() if other.state.label == state.label]
        if len(alike) <= 1:
            return state.label
        return str(KeyReference(token=state.label, attributes={"serial": state.serial}, uri=True))

    def proven(self) -> list[str]:
        """Tokens whose PIN was right."""
        return sorted(self._proven)

    def listing(self) -> dict[str, Any]:
        """Tokens with certificates, keys and mechanisms, as JSON; out of memory."""
        return self._listing

    def _list(self) -> None:
        uses: dict[tuple[bytes, bytes], _Use] = {}
        rows = []
        old = {row["name"]: row for row in self._listing["tokens"]}
        today = int(self._clock() // 86400)
        for token in self.module.seen():
            if not token.state.flags & INITIALISED:
                continue
            name = self.reference(token)
            try:
                certificates, keys = read_certificates(token), read_keys(token)
                given = joined(self._given, token.state.label, keys, {one.der for one in certificates}, old.get(name))
                row: dict[str, Any] = {
                    "name": name,
                    "label": token.state.label,
                    "serial": token.state.serial,
                    "manufacturer": token.state.manufacturer,
                    "model": token.state.model,
                    "mechanisms": sorted(token.offered()),
                    "certificates": [*map(_certificate_row, certificates), *given_rows(self._given, given)],
                    "keys": [_key_row(key, self._rows_for(key)) for key in keys],
                }
                for key in keys:
                    uses[name.encode(), key.id] = self._use(token, name, key, [*certificates, *given])
            except (KeyUnavailable, TokenError):
                row = dict(old.get(name) or {"name": name, "label": token.state.label, "certificates": [], "keys": [], "mechanisms": []})
                uses |= {known: use for known, use in self._uses.items() if known[0] == name.encode()}
            info = token.info()
            usable = name in self._usable
            decided = usable or not info.login_required or bool(info.problem) or name in self._without_pin
            seen_at = self._seen_at.setdefault(name, self._monotonic())
            row |= {
                "settled": self._monotonic() > seen_at + _SETTLE_SECONDS
                or ((decided or old.get(name, {}).get("settled", False)) and self._is_looked_up(row["keys"])),
                "seen": today,
                "usable": usable,
                "problem": info.problem,
                "login_required": info.login_required,
                "pin_pad": info.pin_pad,
            }
            rows.append(row)
        # A card that is out at the start is remembered: mail for it waits, and is not told that there is no key.
        names = {row["name"] for row in rows}
        absent = [row | {"usable": False, "settled": self._is_looked_up(row["keys"])} for row in old.values() if row["name"] not in names]
        self._seen_at = {name: at for name, at in self._seen_at.items() if name in names}
        rows += [row for row in absent if today - row.get("seen", 0) <= _REMEMBERED_DAYS]
        self._uses = uses
        self._listing = {"tokens": rows}
        self._listed_at = self._monotonic()

    def _is_looked_up(self, keys: Sequence[Mapping[str, Any]]) -> bool:
        known = self._looked_up
        return known is None or all(hashlib.sha256(base64.b64decode(key["public_key"])).hexdigest() in known for key in keys)

    def _rows_for(self, key: TokenKey) -> list[tuple[str, str]]:
        if self._assigned is None:
            return [_NOBODY]
        return self._assigned.get(hashlib.sha256(key.public_key).hexdigest(), [])

    def _use(self, token: Token, name: str, key: TokenKey, certificates: Sequence[TokenCertificate]) -> _Use:
        rows = self._rows_for(key)
        own = [one for one in certificates if one.id == key.id and load_certificate(one.der).spki == key.public_key]
        if not rows:
            # Nobody assigned any: those whom its certificates name.
            rows = [(str(address), "") for one in own for address in load_certificate(one.der).addresses]
        patterns = {}
        for usage in ("sign", "decrypt"):
            try:
                patterns[usage] = Addresses([pattern for pattern, of in rows if of in ("", usage)])
            except ConfigurationError:
                patterns[usage] = Addresses([])
        # Keys that certutil makes have no label of their own.
        label = next((one.label for one in own if one.label), "") or key.label or key.id.hex()
        return _Use(token, f"{name}:{label}", patterns)

    # -- for workers ---------------------------------------------------------------------------------------------------------------

    def perform(self, verb: int, fields: Sequence[bytes]) -> bytes:
        """One raw operation. Raise KeyUnavailable, CryptoError, TokenError."""
        if verb in (Verb.ENCRYPT, Verb.VERIFY):
            return self._with_public_key(verb, fields)
        if len(fields) != 5:
            raise CryptoError("a question with other fields")
        name, key_id, operation, address, data = fields
        use = self._uses.get((name, key_id))
        label = name.decode("utf-8", "replace")
        if use is None:
            raise KeyUnavailable(
                f"token {label!r} has no key {key_id.hex()}, or is out", hint="see mailsec token list", stage=f"token:{label}"
            )
        who, usage = address.decode("utf-8", "replace"), "sign" if verb == Verb.SIGN else "decrypt"
        what = operation.decode("ascii", "replace")
        try:
            if (usage, who) not in use.known:
                self._allow(use, usage, who)
            if self._uses_per_minute:
                self._count(use, who)
            if verb == Verb.SIGN:
                result = use.token.sign(key_id, what, data)
            elif verb == Verb.DECRYPT:
                result = use.token.decrypt(key_id, what, data)
            elif verb == Verb.DERIVE:
                result = use.token.derive(key_id, what, data)
            elif verb == Verb.DECAPSULATE:
                result = use.token.decapsulate(key_id, what, data)
            else:
                raise CryptoError("not an operation")
        except MailsecError as error:
            self._audit("key not used", key=use.name, usage=usage, address=who, operation=what, reason=error.message)
            raise
        self._audit("key used", key=use.name, usage=usage, address=who, operation=what)
        return result

    def _with_public_key(self, verb: int, fields: Sequence[bytes]) -> bytes:
        """One with a public key that is not here: everybody may, and no key of ours is touched."""
        if len(fields) != (4 if verb == Verb.ENCRYPT else 5):
            raise CryptoError("a question with other fields")
        label, what = fields[0].decode("utf-8", "replace"), fields[2].decode("ascii", "replace")
        token = next((token for token in self.module.seen() if self.reference(token) == label), None)
        if token is None:
            raise KeyUnavailable(f"there is no token {label!r}, or it is out", hint="see mailsec token list", stage=f"token:{label}")
        if verb == Verb.ENCRYPT:
            return public_keys.encrypt(token, fields[1], what, fields[3])
        return b"\1" if public_keys.verify(token, fields[1], what, fields[3], fields[4]) else b""

    def _allow(self, use: _Use, usage: str, who: str) -> None:
        try:
            address = Address.parse(who)
        except AddressError:
            raise CryptoError(f"the key {use.name!r} is asked for without an address") from None
        if not use.patterns[usage].match(address):
            raise CryptoError(f"the key {use.name!r} is not assigned to {address}", hint="see mailsec token list")
        if len(use.known) >= _KNOWN_ADDRESSES:
            use.known.clear()
        use.known.add((usage, who))

    def _count(self, use: _Use, who: str) -> None:
        """A bucket for each identity that fills again within a minute."""
        most, now = float(self._uses_per_minute), self._monotonic()
        with self._bucket_lock:
            left, at = self._buckets.get(who, (most, now))
            left = min(most, left + (now - at) * most / 60.0)
            if len(self._buckets) >= _KNOWN_ADDRESSES and who not in self._buckets:
                # Those that are full again need none.
                self._buckets = {
                    name: (have, then) for name, (have, then) in self._buckets.items() if have + (now - then) * most / 60 < most
                }
            self._buckets[who] = (max(left - 1.0, 0.0), now)
        if left < 1.0:
            raise KeyUnavailable(
                f"keys are used more than {self._uses_per_minute} times a minute for {who}",
                hint="raise uses_per_minute in [[module]] if that is as it should be",
                stage=f"token:{use.token.state.label}",
            )


def _means(name: str, token: Token) -> bool:
    """Whether a name in [passphrase] is that of this token: a URI whose attributes fit."""
    if not name.lower().startswith("pkcs11:"):
        return False
    try:
        reference = parse_reference(name)
    except MailsecError:
        return False
    state = token.state
    return bool(reference.token) and reference.matches_token(
        label=state.label, manufacturer=state.manufacturer, serial=state.serial, model=state.model
    )


def _certificate_row(one: TokenCertificate) -> dict[str, Any]:
    return {
        "label": one.label,
        "id": one.id.hex(),
        "der": base64.b64encode(one.der).decode("ascii"),
        "has_key": one.has_key,
        "trust": str(one.trust),
        "problem": one.problem,
    }


def _key_row(key: TokenKey, assigned: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "label": key.label,
        "id": key.id.hex(),
        "key_type": key.key_type,
        "bits": key.bits,
        "public_key": base64.b64encode(key.public_key).decode("ascii"),
        "assigned": assigned,
    }
