"""Which peer covers which cell: rows, crossed with peers and directions. From here come the tests (`test_matrix`) and `docs/interop.md`.

A cell that a peer cannot do stands here with the reason; the tests run it all the same and see it fail, so that none stays listed that a
newer version can do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.interop.rows import ROWS, Row

__all__ = ["DIRECTIONS", "PEERS", "Cell", "cells"]

DIRECTIONS = ("from", "to")
"""From the peer to mailsec, and from mailsec to the peer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A program, the version with which the cells were recorded, and what that version cannot do: reason to names of rows."""

    name: str
    version: str
    """As `version()` of its driver says it."""
    marked: bool
    """True where it runs in `make interop` only."""
    cannot_write: Mapping[str, str]
    cannot_read: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """One direction between mailsec and one peer for one row."""

    row: Row
    peer: Peer
    direction: str
    why_not: str = ""
    """Why it cannot be covered; empty for one that is."""

    @property
    def name(self) -> str:
        """The test's id."""
        return f"{self.peer.name.lower().replace(' ', '')}-{self.direction}-{self.row.name}"


_OLD = "this version does not know the algorithm"
_NO_OPTION = "it has no option for it"
_PQ = "ml-dsa-44 ml-dsa-65 ml-dsa-87 ml-kem-768 ml-kem-1024"
_KINDS = "p256 p384 p521 brainpool256 brainpool384 brainpool512"
_ECDH = " ".join(f"ecdh-{kind}" for kind in _KINDS.split())
_OTHER_CURVES = "ecdsa-secp256k1 ecdsa-brainpool256 ecdsa-brainpool384 ecdsa-brainpool512"
_DERIVATIONS = "ecdh-wrap ecdh-kdf-sha1 ecdh-kdf-sha224 ecdh-kdf-sha384 ecdh-kdf-sha512"
_COFACTORS = "ecdh-cofactor-sha1 ecdh-cofactor-sha256 ecdh-cofactor-sha512"
_GCM = "aes-128-gcm aes-192-gcm aes-256-gcm"
_CCM = "aes-128-ccm aes-192-ccm aes-256-ccm"
_PSS = "pss-sha256 pss-sha384 pss-sha512"
_PSS_READ = "pss-mgf1-sha1 pss-mgf1-sha512 pss-no-salt pss-salt-64"
_OAEP = "oaep-sha1 oaep-sha256 oaep-sha384 oaep-sha512 oaep-mask oaep-label"
_FORMS = "key-id no-attributes signing-certificate counter-signed recipient-key-id recipient-key-id-p256"
_KEYLESS = "password password-aes-128 shared-key"
_TYPES = "compressed encrypted-data digested authenticated"

_MESSAGES = " ".join(row.name for row in ROWS if row.layers)
_CMS_ALONE = "it reads and writes CMS objects, no messages"


def _by_row(reasons: Mapping[str, str]) -> dict[str, str]:
    return {name: reason for reason, names in reasons.items() for name in names.split()}


PEERS = (
    Peer(
        "OpenSSL",
        "OpenSSL 3.0",
        False,
        _by_row(
            {
                _OLD: f"{_PQ} x25519 x448",
                "EdDSA in CMS came with OpenSSL 3.2": "ed25519 ed448",
                _NO_OPTION: "counter-signed authenticated",
                "CCM is refused in CMS": _CCM,
                "Debian builds it without zlib": "compressed message-signed-compressed-enveloped",
            }
        ),
        _by_row(
            {
                _OLD: f"{_PQ} x25519 x448",
                "EdDSA in CMS came with OpenSSL 3.2": "ed25519 ed448",
                "Debian builds it without zlib": "compressed message-signed-compressed-enveloped",
            }
        ),
    ),
    Peer(
        "NSS",
        "NSS 3.87",
        True,
        _by_row(
            {
                _OLD: f"{_PQ} ed25519 ed448 x25519 x448 rsa-sha224 rsa-sha3-256 ecdsa-p224 {_OTHER_CURVES}",
                "MD5 is disabled": "rsa-md5",
                _CMS_ALONE: _MESSAGES,
                _NO_OPTION: f"no-certificates {_PSS} {_PSS_READ} {_OAEP} oaep-gcm {_GCM} {_CCM} {_FORMS} {_KEYLESS} {_TYPES} two-signers"
                " two-signers-detached signed-stream encrypted-stream ecdh-gcm ecdh-3des",
                "cmsutil chooses the cipher itself": "aes-192-cbc aes-256-cbc 3des-cbc rc2-128-cbc rc2-40-cbc",
                "no key agreement with ECDH": f"{_ECDH} {_DERIVATIONS} {_COFACTORS} two-recipients",
            }
        ),
        _by_row(
            {
                _OLD: f"{_PQ} ed25519 ed448 x25519 x448 {_OTHER_CURVES}",
                _CMS_ALONE: _MESSAGES,
                "no AuthEnvelopedData": f"{_GCM} oaep-gcm ecdh-gcm",
                "no RSA OAEP in CMS": _OAEP,
                "no key agreement with ECDH, and no message that also has such a recipient": f"{_ECDH} two-recipients",
                "no CompressedData": "compressed",
            }
        ),
    ),
    Peer(
        "GnuPG",
        "GnuPG 2.2",
        True,
        _by_row(
            {
                _OLD: f"{_PQ} ed25519 ed448 dsa x25519 x448 rsa-sha3-256",
                _CMS_ALONE: _MESSAGES,
                _NO_OPTION: f"{_PSS} {_PSS_READ} {_OAEP} oaep-gcm {_FORMS} {_KEYLESS} {_TYPES} certs-only {_COFACTORS}",
                "no AES in GCM or CCM, no RC2": f"{_GCM} {_CCM} rc2-128-cbc rc2-40-cbc ecdh-gcm",
                "encryption with ECDH fails in gpgsm 2.2": f"{_ECDH} {_DERIVATIONS} two-recipients ecdh-3des",
            }
        ),
        _by_row(
            {
                _OLD: f"{_PQ} x25519 x448",
                "gpgsm 2.2 refuses EdDSA and ECDSA on P-521: “DSA requires the hash length to be a multiple of 8 bits”": "ed25519 ed448 ecdsa-p521",
                _CMS_ALONE: _MESSAGES,
                "the parameters of GCM are not read (“error getting IV”), from OpenSSL neither": f"{_GCM} oaep-gcm ecdh-gcm",
                "no RSA OAEP": _OAEP,
                "decryption with ECDH fails in gpgsm 2.2 (“Invalid session key”), from OpenSSL too": _ECDH,
                "no CompressedData": "compressed",
            }
        ),
    ),
    Peer(
        "Bouncy Castle",
        "Bouncy Castle 1.72",
        True,
        _by_row(
            {
                _OLD: f"{_PQ} x25519 x448",
                "the names of its algorithms fix mask and salt": _PSS_READ,
                "its mail library has no AuthEnvelopedData": "message-auth-enveloped",
            }
        ),
        _by_row({_OLD: f"{_PQ} x25519 x448", "it has no recipient of key agreement for AuthEnvelopedData": "ecdh-gcm"}),
    ),
)


def cells() -> Iterator[Cell]:
    """Every cell; none for what mailsec does not write."""
    for peer in PEERS:
        for row in ROWS:
            yield Cell(row, peer, "from", peer.cannot_write.get(row.name, ""))
            if row.written:
                yield Cell(row, peer, "to", peer.cannot_read.get(row.name, ""))
