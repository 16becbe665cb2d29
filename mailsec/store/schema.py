"""The tables of the certificate database, and which of their columns are authenticated.

A table of `AUTHENTICATED` has a `mac` per row, and a sum and count of its rows in the ledger (`store.ledger`): an edited row, a
deleted one and one that was put back all show. The invariant: the columns listed there never change; what a later schema adds
and what decides anything goes into a new table, so that the code of schema N-1 still reads and writes a database of schema N.

Instants are whole seconds since 1970 (UTC); lists are JSON texts; addresses are `Address.key`; certificates are DER.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["APPLICATION_ID", "AUTHENTICATED", "SCHEMA", "metadata"]

SCHEMA: Final = 2
"""The schema that this code writes; it also works on schema 3 (`migrations` says by which rule)."""

APPLICATION_ID: Final = 0x6D736563
"""SQLite's application_id of our files: "msec"."""

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""The wrapped data key (`data-key`), and when and by what the database was made."""

ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("changes", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
"""One row: how often the database was changed, and the sealed sums of all authenticated tables."""

certificates = Table(
    "certificates",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    Column("der", LargeBinary, nullable=False),
    Column("nickname", String(128), nullable=False),
    Column("trust_tls", String(8), nullable=False),
    Column("trust_email", String(8), nullable=False),
    Column("trust_object", String(8), nullable=False),
    Column("domains", Text, nullable=False),
    Column("distrust_after", BigInteger),
    Column("state", String(16), nullable=False),
    Column("subject", LargeBinary, nullable=False),
    Column("key_id", LargeBinary(32), nullable=False),
    Column("not_before", BigInteger),
    Column("not_after", BigInteger),
    Column("source", String(128), nullable=False),
    Column("learnt_at", BigInteger, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Index("certificates_nickname", "nickname"),
    Index("certificates_key_id", "key_id"),
    Index("certificates_subject", "subject"),
)
"""Certificates with nickname, trust letters per purpose, and the domains that an anchor may vouch for.

`key_id` is SHA-256 of the SubjectPublicKeyInfo: it joins certificates, private keys and assignments, on tokens too. `state` is "",
"pending", "pinned" or "blocked". `distrust_after` is NSS's: certificates issued later are not believed.
"""

certificate_addresses = Table(
    "certificate_addresses",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("certificate_id", BigInteger, ForeignKey("certificates.id"), nullable=False),
    Column("address", String(320), nullable=False),
    Column("bound", Boolean, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    UniqueConstraint("certificate_id", "address"),
    Index("certificate_addresses_address", "address"),
)
"""Addresses that a certificate names, or that a person bound to it (`bound`)."""

private_keys = Table(
    "private_keys",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", LargeBinary(32), nullable=False, unique=True),
    Column("key_type", String(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
)
"""PKCS#8 under AES-256-GCM; the table, the row's id and `key_id` are associated data."""

assignments = Table(
    "assignments",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", LargeBinary(32), nullable=False),
    Column("pattern", String(320), nullable=False),
    Column("usage", String(16), nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    UniqueConstraint("key_id", "pattern", "usage"),
)
"""Whom a key signs and opens for, where that is not simply whom its certificate names. `usage` is "" (all), "sign" or "decrypt"."""

users = Table(
    "users",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("login", String(320), nullable=False),
    Column("login_key", String(320), nullable=False, unique=True),
    Column("salt", LargeBinary, nullable=False),
    Column("iterations", Integer, nullable=False),
    Column("stored_key", LargeBinary(32), nullable=False),
    Column("server_key", LargeBinary(32), nullable=False),
    Column("addresses", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
)
"""Users: a SCRAM-SHA-256 verifier (RFC 5802, RFC 7677) and the addresses that they may send as."""

partner_settings = Table(
    "partner_settings",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("partner", String(320), nullable=False),
    Column("name", String(64), nullable=False),
    Column("value", Text, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    UniqueConstraint("partner", "name"),
)
"""Settings per partner: an address, a domain as "@example.org", or "" for the default."""

seal_keys = Table(
    "seal_keys",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("purpose", String(64), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("retires_at", BigInteger),
    Column("mac", LargeBinary(32), nullable=False),
)
"""Secret keys with which the gateway seals what it wrote and reads again."""

modules = Table(
    "modules",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(128), nullable=False, unique=True),
    Column("library", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("defaults", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
)
"""PKCS#11 modules."""

capabilities = Table(
    "capabilities",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("address", String(320), nullable=False, unique=True),
    Column("key_id", LargeBinary(32), nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("signed_at", BigInteger, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
)
"""SMIMECapabilities (RFC 8551 §2.5.2) of correspondents, with the key that signed them and when."""

issued = Table(
    "issued",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("authority", LargeBinary(32), nullable=False),
    Column("serial", String(40), nullable=False),
    Column("der", LargeBinary),
    Column("issued_at", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("reason", String(32), nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    UniqueConstraint("authority", "serial"),
)
"""What our own authorities issued, and what they revoked (schema 2). `authority` is the `key_id` of the authority's key, so that a renewed
certificate of it goes on with the same list; `serial` is hexadecimal; `reason` is a CRLReason of RFC 5280 §5.3.1, "" where none was said."""

learnt = Table(
    "learnt",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("certificate_id", BigInteger, ForeignKey("certificates.id"), nullable=False),
    Column("address", String(320), nullable=False),
    Column("source", String(128), nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("times", Integer, nullable=False),
    UniqueConstraint("certificate_id", "address", "source"),
)
"""Where each certificate was seen. It informs; it decides nothing, so it has no MAC."""

crls = Table(
    "crls",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    Column("issuer", LargeBinary, nullable=False),
    Column("number", String(48)),
    Column("this_update", BigInteger),
    Column("next_update", BigInteger),
    Column("url", Text, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("fetched_at", BigInteger, nullable=False),
    Index("crls_issuer", "issuer"),
)
"""CRLs. They carry their issuer's signature and are judged at every use, so they have no MAC."""

evidence = Table(
    "evidence",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("subject", LargeBinary(32), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("source", Text, nullable=False),
    Column("fetched_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("evidence_subject", "kind", "subject"),
    Index("evidence_expires", "expires_at"),
)
"""Cached OCSP responses and issuer certificates; `subject` is SHA-256 of the certificate asked about. Judged at every use."""

AUTHENTICATED: Final[Mapping[str, tuple[Table, tuple[str, ...]]]] = {
    table.name: (table, tuple(column.name for column in table.columns if column.name != "mac"))
    for table in (
        certificates,
        certificate_addresses,
        private_keys,
        assignments,
        users,
        partner_settings,
        seal_keys,
        modules,
        capabilities,
        issued,
    )
}
"""Tables whose rows decide, with the columns that their MAC covers: up to schema 2 all of them."""
