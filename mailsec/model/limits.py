"""Every limit of mailsec in one table: its name, its default, and the attack that it stops.

Over a limit a reason is given that names it (`errors.LimitExceeded`): never a traceback, never a stuck worker. A test holds
`docs/limits.md` against this table.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]

_KIB = 1024
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force. Octets, seconds and counts, as each line says."""

    # -- SMTP ------------------------------------------------------------------------------------------------------------
    command_line: int = 2048
    """Octets of one SMTP command with CRLF (RFC 5321 §4.5.3.1.4 asks for 512 and more with extensions): endless lines."""
    recipients: int = 1000
    """Recipients of one transaction (RFC 5321 §4.5.3.1.8 asks for at least 100): 10,000 RCPTs that fill memory."""
    unknown_recipients: int = 200
    """Recipients that were refused on one connection: a dictionary of guessed names behind one that is right."""
    message_size: int = 150 * _MIB
    """Octets of one message, told as SIZE (RFC 1870): a disk that fills."""
    bad_commands: int = 10
    """Commands that failed before a session is closed: guessing, HTTP clients, port scans."""
    transactions: int = 10_000
    """Messages on one connection: nothing lives for ever."""
    auth_failures: int = 3
    """Failed AUTH attempts on one connection: guessing of passwords."""
    login_failures_per_address: int = 20
    """Wrong passwords from one address (one /64) in a quarter of an hour, to all workers, before each further login waits: guessing."""
    login_failures_per_account: int = 10
    """The same for one login, from wherever: guessing from many addresses."""
    login_wait_of_address: float = 300.0
    """Seconds that an address waits at most until its next login is looked at; each wrong one doubles its wait."""
    login_wait_of_account: float = 60.0
    """The same for a login. Short: who guesses keeps its owner out no longer (and not at all from where they logged in before)."""
    command_timeout: float = 300.0
    """Seconds without a command (RFC 5321 §4.5.3.2.7): stalled sessions."""
    data_timeout: float = 180.0
    """Seconds without an octet within DATA (RFC 5321 §4.5.3.2.5)."""
    session_timeout: float = 3600.0
    """Seconds that a session may last that never completes a message: a client that sends an octet a minute."""
    handshake_timeout: float = 30.0
    """Seconds of a TLS handshake."""
    connections: int = 2000
    """Connections to all workers at once: descriptors and memory that run out."""
    connections_per_address: int = 200
    """Connections of one address (one /64) to all workers at once: one client that takes all."""
    outgoing_connections: int = 1000
    """Connections of one worker to next hops at once: reports to thousands of domains whose servers never answer."""
    received_headers: int = 50
    """Received fields before a message is a loop (RFC 5321 §6.3 asks for at least 100 hops or another means)."""
    reply_line: int = 2048
    """Octets of one reply line of a next hop (RFC 5321 §4.5.3.1.5): a next hop that answers with 10 MB lines."""
    reply_lines: int = 200
    """Lines of one reply of a next hop: endless multi-line replies."""

    # -- POP3 ------------------------------------------------------------------------------------------------------------
    commands_before_login: int = 30
    """Commands of one POP3 client before it has logged in: one that asks for our capabilities for ever."""
    mailbox_timeout: float = 660.0
    """Seconds without a command of a POP3 client that has logged in (RFC 1939 §3 asks for at least ten minutes)."""
    upstream_timeout: float = 300.0
    """Seconds that a mailbox's server may be silent: one that hangs holds its reader too."""
    listing_octets: int = 16 * _MIB
    """Octets of one list (LIST, UIDL) of a mailbox's server: endless lists."""
    mailbox_message_size: int = 1024 * _MIB
    """Octets of a message out of a mailbox; one over `message_size` is handed out as it is and not looked into: a mailbox's server that sends
    without end, and the disk that fills."""
    mailbox_deletes: int = 100_000
    """Messages that one POP3 session may delete; more go in the next: a server that has as many as its reader cares to name."""

    # -- MIME ------------------------------------------------------------------------------------------------------------
    header_octets: int = 1 * _MIB
    """Octets of one header block: endless headers."""
    header_fields: int = 2000
    """Fields of one header block."""
    header_field_octets: int = 256 * _KIB
    """Octets of one field: quadratic decoders."""
    mime_depth: int = 50
    """Multiparts within multiparts: 1,000 nested ones."""
    mime_parts: int = 1000
    """Parts of one message."""
    boundary_octets: int = 250
    """Octets of a boundary (RFC 2046 §5.1.1 allows 70; the world sends more)."""
    addresses: int = 1000
    """Addresses that are read of one header field."""

    # -- copies ----------------------------------------------------------------------------------------------------------
    max_expansion: int = 20
    """How many times its own size the copies of one message may have in all: a hundred hidden recipients of a large message."""
    expansion_octets: int = 64 * _MIB
    """Octets that the copies of one message may have in all, however small it is."""

    # -- ASN.1 and CMS ---------------------------------------------------------------------------------------------------
    asn1_depth: int = 64
    """Constructed types within constructed types: recursion."""
    asn1_elements: int = 100_000
    """Elements that are read of one structure."""
    asn1_oid_octets: int = 128
    """Octets of an object identifier: arcs of 400 kB that cost half a minute."""
    cms_layers: int = 10
    """S/MIME layers of one message: quines and matryoshkas."""
    signers: int = 20
    """SignerInfos of one SignedData."""
    certificates: int = 100
    """Certificates taken from one CMS structure."""
    crls: int = 20
    """CRLs taken from one CMS structure."""
    digests: int = 4
    """Different digests that one content is hashed with: twenty signers with fourteen digests over 150 MiB."""
    attributes: int = 64
    """Attributes of one SignerInfo."""
    cms_recipients: int = 2000
    """RecipientInfos of one EnvelopedData."""
    cms_metadata_octets: int = 4 * _MIB
    """Octets of a CMS structure besides its content: certificates, CRLs, SignerInfos, RecipientInfos."""
    whole_content_octets: int = 16 * _MIB
    """Octets of content that must be in memory as a whole: encrypted with CCM, signed with EdDSA or ML-DSA without signed attributes."""
    decompressed_ratio: int = 100
    """Octets out for one octet in, of CompressedData: bombs."""
    decompressed_octets: int = 150 * _MIB
    """Octets that come out of one CompressedData."""
    rsa_bits: int = 16_384
    """Bits of an RSA modulus that are computed with: keys that cost seconds."""
    rsa_exponent_bits: int = 64
    """Bits of an RSA public exponent."""
    kdf_iterations: int = 900_000
    """Iterations of one password-based key derivation: PKCS#12 files and keys that cost hours. (NSS asks for 600,000.)"""
    kdf_iterations_of_file: int = 10_000_000
    """Iterations of all derivations of one file: PKCS#12 files of a thousand bags."""
    private_key_operations: int = 10
    """Private-key operations for one message from outside."""
    waiting_for_token: int = 1000
    """Messages of one worker that wait for one token; more are refused for now (451 4.3.2): a spool that fills while a card is out."""

    # -- spool -----------------------------------------------------------------------------------------------------------
    spooled_messages: int = 500_000
    """Rows in the spool of one worker; more mail is refused for now (451 4.3.2): a queue that grows faster than it can leave."""

    # -- paths -----------------------------------------------------------------------------------------------------------
    path_length: int = 10
    """Certificates of a path."""
    path_candidates: int = 100
    """Certificates that are tried as issuers for one message."""
    signature_checks: int = 200
    """Public-key signature checks for one message, over all layers: hostile bags of certificates."""
    evidence_rounds: int = 3
    """Rounds of asking for missing evidence."""
    fetches: int = 4
    """Look-ups over the network for one message."""
    fetch_octets: int = 10 * _MIB
    """Octets of one look-up: responders that send 10 GB."""
    fetch_timeout: float = 10.0
    """Seconds of one look-up."""
    evidence_timeout: float = 25.0
    """Seconds that one message waits for evidence: responders that hang."""

    # -- database --------------------------------------------------------------------------------------------------------
    certificate_octets: int = 256 * _KIB
    """Octets of a certificate that the database takes: post-quantum ones have some 20 KiB."""
    remembered_logins: int = 1024
    """Logins that a worker remembers (as keyed digests), so that not every message costs the whole check of a password."""
    remembered_login_seconds: float = 300.0
    """How long it remembers them; a change of the database ends it at once."""

    # -- work ------------------------------------------------------------------------------------------------------------
    scratch_memory: int = 256 * _KIB
    """Octets of a message that stay in memory; above, they go to a file (promise 9)."""
    bulk_threshold: int = 1 * _MIB
    """Octets above which work goes to the bulk lane of threads."""
    findings: int = 100
    """Findings that one plugin may report on one message."""
    hook_timeout: float = 30.0
    """Seconds that a plugin may take to answer one awaited hook."""
    reactor_blocked: float = 10.0
    """Seconds that a plugin may block a worker in which nothing else can happen meanwhile: then the worker is ended."""
    attempts_before_hold: int = 3
    """How often a row may take its worker down before it is held: poison messages."""


DEFAULT_LIMITS = Limits()
