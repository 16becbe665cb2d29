"""An NSS database (cert9.db, key4.db) as a certificate database, over the token that softoken shows of it.

Certificates, nicknames, trust letters, keys and revocation lists lie where certutil, pk12util, crlutil, Firefox and Thunderbird read and write
them, and are read anew each time: nothing is kept here. What NSS has no place for (users, assignments, domains of anchors, settings of
partners) is refused with the sentence that says so, never dropped. Blocking.

The one invariant: trust counts only where NSS itself has checked it: while the token is logged in, and its objects could be read. Without
that an entry is not `verified`, and decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final, Self

from mailsec.errors import KeyUnavailable, Tampered, UsageError, WrongPassphrase
from mailsec.interfaces import TokenHost
from mailsec.keys.token_handle import TokenHandle
from mailsec.model.address import Address
from mailsec.model.session import matches_pattern
from mailsec.model.tokens import TokenCertificate, TokenKey
from mailsec.model.trust import Anchor, CertificateEntry, TrustFlags, UserEntry
from mailsec.store.database import now
from mailsec.store.entry_rows import PURPOSES, anchor_purposes
from mailsec.store.facts import demand_key_fits, facts_of
from mailsec.store.intake import Incoming
from mailsec.store.issuers import issuers_of
from mailsec.store.nicknames import check_nickname, free_nickname, make_nickname
from mailsec.store.private_keys import StoredKey, the_key_called
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec.x509.private_keys import public_key_of

__all__ = ["NssDb"]

NO_TRUST: Final = TrustFlags()
_ANYWHERE: Final = ("*",)


class NssDb:
    """An `interfaces.CertificateDatabase` over one token of a TokenHost."""

    def __init__(
        self, host: TokenHost, token: str, name: str, *, password: bytes = b"", close: Callable[[], object] = lambda: None
    ) -> None:
        """`token`: its name in `host`; `name`: how errors call it ("nss:DIR"); `password`: what the caller has logged in with."""
        self.name = name
        self._password = password
        self._host = host
        self._token = token
        self._close = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the host back."""
        self._close()

    @property
    def unlocked(self) -> bool:
        """True where somebody is logged in, or the database has no password."""
        return any(
            token.logged_in or not token.login_required
            for token in self._host.tokens()
            if self._token in ("", token.label) and not token.problem
        )

    # -- asking ------------------------------------------------------------------------------------------------------------

    def entries(self) -> Sequence[CertificateEntry]:
        """Every certificate, by nickname."""
        unlocked = self.unlocked
        # NSS writes two objects where a certificate was imported twice by different ways: it is one entry.
        found = {one.der: one for one in reversed(self._host.certificates(self._token))}
        return sorted((self._entry(one, unlocked) for one in found.values()), key=lambda entry: (entry.nickname, entry.id))

    def entries_with(self, ids: Sequence[int]) -> Sequence[CertificateEntry]:
        """The entries with these ids, in their order; those that are gone are left out."""
        known = {entry.id: entry for entry in self.entries()}
        return [known[each] for each in ids if each in known]

    def find(self, nickname: str, *, at: datetime | None = None) -> Sequence[CertificateEntry]:
        """Entries called `nickname`: verified ones first, of these our own newest valid one."""
        return _best_first([entry for entry in self.entries() if entry.nickname == nickname], at or now())

    def for_address(self, address: Address, *, at: datetime | None = None) -> Sequence[CertificateEntry]:
        """Verified entries that name `address`, best first; distrusted ones are left out."""
        found = [
            entry for entry in self.entries() if address.key in entry.addresses and entry.verified and not entry.trust.email_distrusted
        ]
        return _best_first(found, at or now())

    def assigned_to(self, address: Address, usage: str = "", *, at: datetime | None = None) -> Sequence[CertificateEntry]:
        """Verified entries that name `address` and whose key is here; NSS keeps no other assignments, so `usage` makes no difference."""
        return [
            entry
            for entry in self.for_address(address, at=at)
            if entry.has_key and any(matches_pattern(each, address) for each in entry.addresses)
        ]

    def anchors(self, purpose: str) -> Sequence[Anchor]:
        """What may vouch for "email", "tls-server" or "tls-client": everywhere, as NSS knows no domains. Raise WrongPassphrase."""
        self._demand(purpose)
        found = [(entry, anchor_purposes(entry.trust, entry.der)) for entry in self.entries() if entry.verified]
        return tuple(Anchor(entry.der, _ANYWHERE, purposes) for entry, purposes in found if purpose in purposes)

    def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """Certificates that no path may hold (NSS's "p"). Raise Tampered where one's trust was edited: it may have been such a one."""
        self._demand(purpose)
        entries = self.entries()
        if edited := [entry for entry in entries if not entry.verified]:
            raise Tampered(
                f'the trust of "{edited[0].nickname}" was not written by NSS, and may have been a distrust',
                hint=f'`mailsec cert trust "{edited[0].nickname}" TRUST -d {self.name}` writes it anew',
            )
        return tuple(entry.der for entry in entries if "p" in (entry.trust.email if purpose == "email" else entry.trust.tls))

    def authorities(self) -> Sequence[bytes]:
        """Certificates of authorities that are here, to build paths with; distrusted ones are left out."""
        found = []
        for entry in self.entries():
            basic = load_certificate(entry.der).basic_constraints
            if entry.verified and not entry.trust.email_distrusted and basic is not None and basic.ca:
                found.append(entry.der)
        return tuple(found)

    def chain(self, entry: CertificateEntry) -> tuple[bytes, ...]:
        """Certificates of the entry's issuers that are here, nearest first; a self-signed one, the anchor, is left out."""
        entries = self.entries()

        def called(subject: bytes) -> Sequence[Certificate]:
            certificates = [load_certificate(each.der) for each in entries if each.verified and not each.trust.email_distrusted]
            return [each for each in certificates if each.subject.der == subject]

        return issuers_of(load_certificate(entry.der), called)

    def private_key(self, entry: CertificateEntry) -> bytes | None:
        """PKCS#8 DER of the entry's key; None where the database has none. Raise TokenError where the token keeps it."""
        self._demand_login()
        key = self._key_of(facts_of(entry.der).spki)
        return None if key is None else self._host.export_key(self._token, key.id)

    def key_handle(self, entry: CertificateEntry, random: Callable[[int], bytes]) -> TokenHandle | None:
        """The entry's key, to be used where it lies; None where it is not here. It works as long as the database is open."""
        self._demand_login()
        key = self._key_of(facts_of(entry.der).spki)
        if key is None:
            return None
        offered = {mechanism.name.removeprefix("CKM_") for mechanism in self._host.mechanisms(self._token)}
        return TokenHandle(entry.nickname, key, self._ask, offered=offered, random=random, certificate=entry.der, chain=self.chain(entry))

    async def _ask(self, verb: str, key: TokenKey, operation: str, data: bytes) -> bytes:
        operations = {"sign": self._host.sign, "decrypt": self._host.decrypt, "derive": self._host.derive}
        return operations[verb](self._token, key.id, operation, data)

    def stored_keys(self) -> Sequence[StoredKey]:
        """Every private key, by the id that `certutil -K` shows (CKA_ID): keys that certutil made have no name of their own."""
        names: dict[bytes, list[str]] = {}
        for one in self._host.certificates(self._token):
            names.setdefault(one.id, []).append(one.label)
        return [
            StoredKey(key.id, key.key_type, tuple(dict.fromkeys(names.get(key.id, ()))), (), None, verified=True)
            for key in self._host.keys(self._token)
        ]

    def find_key(self, name: str) -> StoredKey:
        """The key of a certificate called `name`, or whose id begins with it. Raise KeyUnavailable, or UsageError where there are several."""
        return the_key_called(name, self.stored_keys())

    def key_octets(self, key_id: bytes, name: str = "") -> bytes | None:
        """PKCS#8 DER of a key; None where it is not here."""
        self._demand_login()
        known = any(key.id == key_id for key in self._host.keys(self._token))
        return self._host.export_key(self._token, key_id) if known else None

    def users(self) -> Sequence[UserEntry]:
        """None: NSS knows no users."""
        return ()

    def check_password(self, login: str, password: bytes) -> UserEntry | None:
        """None: NSS knows no users."""
        return None

    def check(self) -> tuple[str, ...]:
        """What is wrong with it, one sentence each."""
        if not self.unlocked:
            return ("the password of the database was not given: no trust could be checked",)
        found = [f'"{one.label}": {one.problem}' for one in self._host.certificates(self._token) if one.problem]
        return tuple(found)

    # -- changing ----------------------------------------------------------------------------------------------------------

    def add(
        self,
        certificate: bytes,
        nickname: str,
        *,
        trust: TrustFlags = NO_TRUST,
        domains: Sequence[str] = (),
        source: str = "imported",
        private_key: bytes | None = None,
        assigned: Sequence[str] = (),
        issuer: bytes | None = None,
        at: datetime,
    ) -> CertificateEntry:
        """Add a certificate, and with `private_key` (PKCS#8 DER) its key; the same certificate twice is one entry, and keeps its nickname.

        Raise UsageError for a nickname that another subject has, for an e-mail anchor without the domains "*", and for what NSS cannot keep.
        """
        item = Incoming(
            certificate,
            check_nickname(nickname),
            trust=trust,
            domains=domains,
            private_key=private_key,
            assigned=assigned,
            source=source,
            issuer=issuer,
        )
        with self.taking(at=at) as take:
            number, _ = take(item)
        return self.entries_with([number])[0]

    @contextmanager
    def taking(self, *, at: datetime) -> Iterator[Callable[[Incoming], tuple[int, bool]]]:
        """A function that adds one certificate, and returns the id of its entry, and whether it is new."""
        self._demand_login()
        known = {entry.der: entry for entry in self.entries()}
        subjects = {entry.nickname: load_certificate(entry.der).subject.der for entry in known.values()}
        numbered = {_number(der): entry for der, entry in known.items()}

        def take(item: Incoming) -> tuple[int, bool]:
            facts = facts_of(item.der)
            self._demand_fit(item)
            if item.private_key is not None:
                demand_key_fits(item.private_key, facts.spki)
            entry = known.get(item.der)
            if entry is None and (other := numbered.get(_number(item.der))) is not None:
                raise UsageError(
                    f'"{other.nickname}" has this issuer and serial number, by which NSS knows certificates',
                    hint="one of the two is forged or a mistake",
                )
            nickname = entry.nickname if entry is not None else self._nickname(item, facts.subject, subjects)
            key = None
            if item.private_key is not None and self._key_of(facts.spki) is None:
                key = self._host.import_key(self._token, item.private_key, nickname)
            if entry is None:
                try:
                    self._host.import_certificate(self._token, item.der, nickname)
                except BaseException:
                    if key is not None:
                        self._host.delete_key(self._token, key.id)
                    raise
            if item.trust != NO_TRUST:
                self._host.set_trust(self._token, item.der, item.trust)
            made = self._entry(TokenCertificate(self._token, nickname, b"", item.der), True)
            known[item.der], subjects[nickname], numbered[_number(item.der)] = made, facts.subject, made
            return made.id, entry is None

        yield take

    def set_trust(self, nickname: str, trust: TrustFlags, *, domains: Sequence[str] = ()) -> None:
        """Give every certificate of `nickname` these flags; an anchor for e-mail is one for any domain, which `domains` must say ("*")."""
        self._demand_login()
        _demand_anywhere(trust, domains, self.name)
        for entry in self._named(nickname):
            self._host.set_trust(self._token, entry.der, trust)

    def rename(self, nickname: str, new: str) -> None:
        """Call every certificate of `nickname` by another name."""
        self._demand_login()
        new = check_nickname(new)
        entries = self._named(nickname)
        subject = load_certificate(entries[0].der).subject.der
        _demand_nickname(new, subject, {each.nickname: load_certificate(each.der).subject.der for each in self.entries()})
        for entry in entries:
            self._host.rename(self._token, entry.der, new)

    def delete(self, entry: CertificateEntry, *, keep_key: bool = False) -> bool:
        """Remove one certificate with its trust, and its key if no other certificate here has it; True where a key went too."""
        self._demand_login()
        spki = load_certificate(entry.der).spki
        self._host.delete_certificate(self._token, entry.der)
        key = None if keep_key else self._key_of(spki)
        if key is None or any(load_certificate(one.der).spki == spki for one in self._host.certificates(self._token)):
            return False
        self._host.delete_key(self._token, key.id)
        return True

    def generate_key(self, kind: str, *, at: datetime) -> bytes:
        """Make a key pair in the database; return its id (CKA_ID)."""
        self._demand_login()
        return self._host.generate_key(self._token, kind, "").id

    def add_key(self, private_key: bytes, *, at: datetime) -> bytes:
        """Keep a key (PKCS#8 DER) that has no certificate yet; return its id. One that is there stays as it is."""
        self._demand_login()
        spki = public_key_of(private_key)
        demand_key_fits(private_key, spki)
        known = self._key_of(spki)
        return known.id if known is not None else self._host.import_key(self._token, private_key, "").id

    def delete_key(self, key_id: bytes) -> bool:
        """Remove a key, and not its certificates; False where it was not here."""
        self._demand_login()
        if not any(key.id == key_id for key in self._host.keys(self._token)):
            return False
        self._host.delete_key(self._token, key_id)
        return True

    def change_password(self, password: bytes) -> None:
        """Change the password; NSS encrypts every key anew. Raise TokenError where the old one is wrong, or the new one is not taken."""
        self._demand_login()
        self._host.set_pin(self._token, self._password, password)
        self._password = password

    # -- revocation lists ------------------------------------------------------------------------------------------------------

    def revocation_lists(self) -> Sequence[bytes]:
        """DER of the lists that are here."""
        return self._host.revocation_lists(self._token)

    def keep_list(self, der: bytes, url: str = "") -> None:
        """Keep a list in the place of older ones of its issuer; `url` is where it came from. Raise InputError for what is none, or is older."""
        self._demand_login()
        self._host.import_revocation_list(self._token, der, url)

    def list_url(self, der: bytes) -> str:
        """Where a list came from; empty where nobody said so."""
        return self._host.revocation_list_url(self._token, der)

    def delete_list(self, der: bytes) -> None:
        """Forget a list."""
        self._demand_login()
        self._host.delete_revocation_list(self._token, der)

    # -- within ----------------------------------------------------------------------------------------------------------------

    def _entry(self, one: TokenCertificate, unlocked: bool) -> CertificateEntry:
        certificate = load_certificate(one.der)
        return CertificateEntry(
            # NSS numbers nothing: the certificate is its own number.
            int.from_bytes(hashlib.sha256(one.der).digest()[:6], "big"),
            one.label,
            one.der,
            one.trust,
            has_key=one.has_key,
            addresses=tuple(dict.fromkeys(address.key for address in certificate.addresses)),
            verified=unlocked and not one.problem,
            source=self.name,
        )

    def _key_of(self, spki: bytes) -> TokenKey | None:
        return next((key for key in self._host.keys(self._token) if spki and key.public_key == spki), None)

    def _named(self, nickname: str) -> Sequence[CertificateEntry]:
        found = [entry for entry in self.entries() if entry.nickname == nickname]
        if not found:
            raise KeyUnavailable(f"there is no certificate {nickname[:80]!r}", hint="`mailsec cert list` shows those that there are")
        return found

    def _nickname(self, item: Incoming, subject: bytes, subjects: dict[str, bytes]) -> str:
        if item.nickname:
            nickname = check_nickname(item.nickname)
            _demand_nickname(nickname, subject, subjects)
            return nickname
        wanted = make_nickname(item.suggested, "imported")
        return free_nickname(wanted, {name for name, owner in subjects.items() if owner != subject})

    def _demand_fit(self, item: Incoming) -> None:
        """Raise UsageError where NSS has no place for what is wanted."""
        if item.assigned:
            raise UsageError(
                "an NSS database keeps no assignments",
                hint="a key there is for whom its certificate names; `mailsec key assign` says it in a mailsec database",
            )
        if item.bound:
            raise UsageError("an NSS database keeps no bindings to addresses and domains", hint="use a mailsec database: `mailsec db init`")
        if item.issuer is not None or item.state or item.distrust_after is not None:
            raise UsageError(
                "an NSS database keeps no register of what was issued, and no decisions", hint="use a mailsec database: `mailsec db init`"
            )
        _demand_anywhere(item.trust, item.domains, self.name)

    def _demand(self, purpose: str) -> None:
        if purpose not in PURPOSES:
            raise UsageError(f"there is no purpose {purpose!r}", hint="one of " + ", ".join(PURPOSES))
        self._demand_login()

    def _demand_login(self) -> None:
        if not self.unlocked:
            problems = [token.problem for token in self._host.tokens() if self._token in ("", token.label) and token.problem]
            why = problems[0] if problems else "its password was not given"
            raise WrongPassphrase(f"{self.name} is locked: {why}", hint="use --passphrase-file FILE")


def _best_first(entries: Sequence[CertificateEntry], at: datetime) -> list[CertificateEntry]:
    """As `entry_rows.best_first`: of several certificates with one name, our own newest valid one is used."""

    def worth(entry: CertificateEntry) -> tuple[bool, bool, bool, float, int]:
        certificate = load_certificate(entry.der)
        begins, ends = certificate.not_before, certificate.not_after
        valid = begins is not None and ends is not None and begins <= at <= ends
        return entry.verified, valid, entry.has_key, begins.timestamp() if begins else 0.0, entry.id

    return sorted(entries, key=worth, reverse=True)


def _number(der: bytes) -> tuple[bytes, int]:
    certificate = load_certificate(der)
    return certificate.issuer.der, certificate.serial


def _demand_nickname(nickname: str, subject: bytes, subjects: dict[str, bytes]) -> None:
    # NSS has this rule, too.
    if subjects.get(nickname, subject) != subject:
        raise UsageError(f"another subject has the nickname {nickname!r}", hint="choose another nickname")


def _demand_anywhere(trust: TrustFlags, domains: Sequence[str], name: str) -> None:
    """Design §6: anchors added by hand are for named domains. NSS knows none, so whoever makes one there types that it is for any."""
    if any(domain != "*" for domain in domains):
        raise UsageError(f"{name} keeps no domains of anchors", hint='say "--for any", or trust the CA in a mailsec database')
    if trust.email_anchor and not domains:
        raise UsageError(
            "an anchor for e-mail needs the domains that it may vouch for", hint='in an NSS database it is for all: "--for any"'
        )


if TYPE_CHECKING:
    from mailsec.interfaces import CertificateDatabase

    _keeps_the_promise: type[CertificateDatabase] = NssDb
