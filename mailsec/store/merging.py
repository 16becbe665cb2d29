"""What another database knows, taken over: certificates with trust and keys from any certificate database, the rest from a mailsec one.

The target may be an NSS database, too: what NSS has no place for stays behind (`store.nss_fitting`), and is told.

What is here already stays as it is: of two databases that say different things about one certificate, ours is right, and the difference is
told. The one invariant: nothing is taken over that the other database does not verify.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from mailsec.errors import InputError, PrivateKeyError, TokenError
from mailsec.interfaces import CertificateDatabase
from mailsec.model.trust import CertificateEntry, TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.connection import fetch
from mailsec.store.entry_rows import instant_of
from mailsec.store.evidence import EvidenceStore
from mailsec.store.intake import Incoming, take_in
from mailsec.store.nss_fitting import fitted_to_nss, lists_for_nss, why_not_in_nss, without_place
from mailsec.store.nss_lists import NssLists
from mailsec.store.nssdb import NssDb
from mailsec.store.schema import assignments, capabilities, certificates, crls, issued, partner_settings, users

__all__ = ["Merged", "merge"]

_NOTHING = TrustFlags()
Show = Callable[[int, str], object]


@dataclass(slots=True)
class Merged:
    """What was taken over, and what was not."""

    added: int = 0
    known: int = 0
    keys: int = 0
    unverified: list[str] = field(default_factory=list)
    """Nicknames that the other database does not verify; they were left there."""
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """(nickname there, nickname here): another subject had the name."""
    differing: list[tuple[str, str, str]] = field(default_factory=list)
    """(nickname here, trust here, trust there): ours was kept."""
    problems: list[str] = field(default_factory=list)
    users: int = 0
    partners: int = 0
    lists: int = 0
    issued: int = 0


def merge(
    target: CertDb | NssDb, source: CertificateDatabase, *, domains: Sequence[str] = (), at: datetime, show: Show = lambda done, words: None
) -> Merged:
    """Take over what `source` has and `target` has not. `domains` are those of its anchors for e-mail that name none (NSS knows none)."""
    merged = Merged()
    _certificates(target, source, merged, domains, at, show)
    if isinstance(source, CertDb | NssDb):
        _lone_keys(target, source, merged, at)
    if isinstance(source, CertDb) and isinstance(target, CertDb):
        _rows(target, source, merged)
    elif isinstance(source, CertDb | NssDb):
        _lists(target, source, merged, at)
    if isinstance(source, CertDb) and isinstance(target, NssDb):
        merged.problems += without_place(source)
    return merged


def _certificates(
    target: CertDb | NssDb, source: CertificateDatabase, merged: Merged, domains: Sequence[str], at: datetime, show: Show
) -> None:
    here = {entry.der: entry for entry in target.entries()}
    states = _states(source) if isinstance(source, CertDb) else {}
    wanted = []
    for entry in source.entries():
        if not entry.verified:
            merged.unverified.append(entry.nickname)
        elif isinstance(target, NssDb) and (why := why_not_in_nss(*states.get(entry.id, ("", None)))):
            merged.problems.append(f"{entry.nickname}: {why}")
        else:
            wanted.append(entry)
    keys = {entry.der for entry in here.values() if entry.has_key}

    def incoming() -> Iterator[Incoming]:
        for entry in wanted:
            ours = here.get(entry.der)
            trust = entry.trust
            if ours is not None and ours.trust != _NOTHING and ours.trust != trust:
                merged.differing.append((ours.nickname, str(ours.trust), str(trust)))
                trust = _NOTHING
            # What we trust already is not written again: an anchor keeps its domains.
            if ours is not None and ours.trust == trust:
                trust = _NOTHING
            state, distrust_after = states.get(entry.id, ("", None))
            key = _key(source, entry, merged) if entry.has_key and entry.der not in keys else None
            item = Incoming(
                entry.der,
                suggested=entry.nickname,
                trust=trust,
                domains=(entry.domains or domains) if trust.email_anchor else (),
                private_key=key,
                assigned=() if isinstance(source, CertDb) else entry.assigned,
                source=entry.source or "imported",
                bound=entry.bound,
                state=state,
                distrust_after=distrust_after,
            )
            if isinstance(target, NssDb):
                item, lost = fitted_to_nss(item, entry.assigned, anywhere=tuple(domains) == ("*",))
                merged.problems += [f"{entry.nickname}: {one}" for one in lost]
            merged.keys += item.private_key is not None
            yield item

    ids = []
    for number, (entry, taken) in enumerate(zip(wanted, take_in(target, incoming(), at=at), strict=True), 1):
        show(number, f"{number:,} certificates")
        if taken.problem is not None:
            merged.problems.append(f"{entry.nickname}: {taken.problem.message}")
            continue
        merged.added += taken.new
        merged.known += not taken.new
        if taken.new:
            ids.append((taken.id, entry.nickname))
    for entry, (_, before) in zip(target.entries_with([number for number, _ in ids]), ids, strict=True):
        if entry.nickname != before:
            merged.renamed.append((before, entry.nickname))


def _states(source: CertDb) -> dict[int, tuple[str, datetime | None]]:
    columns = (certificates.c.id, certificates.c.state, certificates.c.distrust_after)
    with source.reading() as connection:
        return {row["id"]: (str(row["state"]), instant_of(row["distrust_after"])) for row in fetch(connection, select(*columns))}


def _key(source: CertificateDatabase, entry: CertificateEntry, merged: Merged) -> bytes | None:
    """The private key of an entry; one that does not come stops nothing else."""
    try:
        return source.private_key(entry)
    except (TokenError, PrivateKeyError) as error:
        merged.problems.append(f"the private key of {entry.nickname}: {error.message}")
        return None


def _lone_keys(target: CertDb | NssDb, source: CertDb | NssDb, merged: Merged, at: datetime) -> None:
    """Keys that wait for their certificates. (An NSS database has other ids for them.)"""
    known = {key.key_id for key in target.stored_keys()}
    for key in source.stored_keys():
        if key.verified and not key.nicknames and key.key_id not in known:
            try:
                octets = source.key_octets(key.key_id)
                merged.keys += octets is not None and target.add_key(octets, at=at) not in known
            except (TokenError, PrivateKeyError) as error:
                merged.problems.append(f"the private key {key.key_id.hex()[:16]}: {error.message}")


def _lists(target: CertDb | NssDb, source: CertDb | NssDb, merged: Merged, at: datetime) -> None:
    """Revocation lists of an NSS database, or for one."""
    store = EvidenceStore(target) if isinstance(target, CertDb) else NssLists(target)
    known = {one.sha256 for one in store.lists()}
    if isinstance(source, NssDb):
        found = [(der, source.list_url(der)) for der in source.revocation_lists()]
    else:
        kept = EvidenceStore(source)
        found = [(der, one.url) for one in kept.lists() for der in kept.list_octets([one.id])]
    for der, url in found if isinstance(target, CertDb) else lists_for_nss(found, target.revocation_lists()):
        try:
            merged.lists += store.keep_list(der, url=url, at=at).sha256 not in known
        except InputError as error:
            merged.problems.append(f"a revocation list: {error.message}")


def _rows(target: CertDb, source: CertDb, merged: Merged) -> None:
    """Users, assignments, settings, the register of our authorities, capabilities and lists that are not here."""
    known_keys = {key.key_id for key in target.stored_keys()}
    plans = (
        ("users", users, ("login_key",)),
        ("partner_settings", partner_settings, ("partner", "name")),
        ("issued", issued, ("authority", "serial")),
        ("capabilities", capabilities, ("address",)),
        ("assignments", assignments, ("key_id", "pattern", "usage")),
    )
    with source.reading() as reading, target.writing() as changes:
        connection = changes.connection
        # Whom a key is for is said of the key as a whole: where somebody said it here, that stays.
        said_here = {row["key_id"] for row in fetch(connection, select(assignments.c.key_id))}
        for name, table, unique in plans:
            if source.problem(reading, name):
                merged.problems.append(f"table {name}: {source.problem(reading, name)}")
                continue
            there = fetch(reading, select(table))
            here = {tuple(row[column] for column in unique) for row in fetch(connection, select(*(table.c[column] for column in unique)))}
            foreign = 0
            for row in there:
                if not source.authentic(name, row):
                    # Attack: of a revocation, or of what narrows whom a key is for, that it did not come must be seen.
                    foreign += 1
                    continue
                if tuple(row[column] for column in unique) in here:
                    continue
                if name == "assignments" and (row["key_id"] in said_here or row["key_id"] not in known_keys):
                    continue
                changes.insert(name, _values(row))
                merged.users += name == "users"
                merged.partners += name == "partner_settings"
                merged.issued += name == "issued"
            if foreign:
                merged.problems.append(f"table {name}: {foreign} of {len(there)} rows were changed by something else than mailsec")
        held = {row["sha256"] for row in fetch(connection, select(crls.c.sha256))}
        for row in fetch(reading, select(crls)):
            if row["sha256"] not in held:
                connection.execute(insert(crls).values({name: value for name, value in row.items() if name != "id"}))
                merged.lists += 1


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("id", "mac")}
