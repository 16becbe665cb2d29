"""Contexts of the TLS library from policies and certificates in memory; what both sides have in common."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from OpenSSL import SSL

from mailsec.algorithms.tls import terms_of
from mailsec.errors import ConfigurationError
from mailsec.model.tls import TlsPolicy
from mailsec.net.tls_library import known_groups, set_groups
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["ContextFacts", "OwnCertificate", "add_certificate", "make_context", "own_certificate"]

# RFC 9325 §3.3, §3.5: no compression (CRIME), no renegotiation.
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_SINGLE_DH_USE | SSL.OP_SINGLE_ECDH_USE
_VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A certificate that we can show, with its key."""

    name: str
    """How the configuration calls it: a nickname, or "file:DIR"."""
    der: bytes
    private_key: bytes = field(repr=False)
    """PKCS#8 DER."""
    chain: tuple[bytes, ...] = ()
    """DER, from its issuer upwards; a root is not shown."""

    @property
    def certificate(self) -> Certificate:
        return load_certificate(self.der)


@dataclass(frozen=True, slots=True)
class ContextFacts:
    """What is remembered with a context (its `app_data`; that of a connection is Twisted's)."""

    shown: tuple[OwnCertificate, ...] = ()
    authority: bytes | None = None
    """The certificate (DER) by which a next hop is known."""


def own_certificate(name: str, certificate: bytes, private_key: bytes, chain: Sequence[bytes] = ()) -> OwnCertificate:
    """The same from PEM or DER; a PEM `certificate` may hold its chain. Raise ConfigurationError for what cannot be read."""
    try:
        own, *rest = _certificates(certificate)
        for octets in chain:
            rest += _certificates(octets)
        key = private_key
        if b"-----BEGIN" in private_key:
            from mailsec.keys.files import load_private_key

            key = load_private_key(private_key, None)
    except ValueError as error:
        raise _unusable() from error
    return OwnCertificate(name, own, key, tuple(rest))


def _certificates(data: bytes) -> list[bytes]:
    found = x509.load_pem_x509_certificates(data) if b"-----BEGIN" in data else [x509.load_der_x509_certificate(data)]
    return [one.public_bytes(Encoding.DER) for one in found]


def _unusable(name: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"the certificate {name} and its private key cannot be used together"
        if name
        else "a certificate and its private key cannot be read",
        hint="give a certificate with the key that belongs to it (RSA, ECDSA or Ed25519)",
    )


@lru_cache(maxsize=32)
def _groups(names: tuple[str, ...]) -> tuple[str, ...]:
    return known_groups(names)


def make_context(policy: TlsPolicy) -> SSL.Context:
    """A context that speaks as `policy` says; raise ConfigurationError where the library cannot."""
    terms = terms_of(policy)
    context = SSL.Context(SSL.TLS_METHOD)
    # RFC 8996: TLS 1.0 and 1.1 are not used; `terms_of` knows no name for them.
    context.set_min_proto_version(_VERSIONS[terms.minimum])
    context.set_max_proto_version(_VERSIONS[terms.maximum])
    context.set_options(_OPTIONS)
    try:
        context.set_cipher_list(terms.ciphers.encode("ascii"))
        context.set_tls13_ciphersuites(":".join(terms.suites).encode("ascii"))
    except (SSL.Error, UnicodeEncodeError) as error:
        raise ConfigurationError(
            f"the TLS library knows none of the ciphers in {policy.ciphers!r}", hint="leave ciphers out: the profile has a list"
        ) from error
    groups = _groups(terms.groups)
    if policy.groups and len(groups) != len(policy.groups):
        raise ConfigurationError(
            "the TLS library does not have " + ", ".join(name for name in policy.groups if name not in groups),
            hint="leave it out of groups",
        )
    if groups:
        set_groups(context, groups)
    # An idle session then costs no buffers: 2000 connections of one worker.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def add_certificate(context: SSL.Context, own: OwnCertificate) -> None:
    """Show `own` with its chain; a context holds one for each kind of key. Raise ConfigurationError where certificate and key differ."""
    try:
        key = load_der_private_key(own.private_key, None)
        # The library keeps a chain for each certificate only where it reads it from a file: this one is in memory.
        descriptor = os.memfd_create("chain", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, b"".join(_pem(der) for der in (own.der, *_shown(own.chain))))
            context.use_certificate_chain_file(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        context.use_privatekey(key)  # type: ignore[arg-type]  # kinds that OpenSSL refuses raise below
        context.check_privatekey()
    except (ValueError, TypeError, SSL.Error) as error:
        raise _unusable(own.name) from error


def _shown(chain: Iterable[bytes]) -> Iterable[bytes]:
    for der in chain:
        authority = load_certificate(der)
        # RFC 8446 §4.4.2: the root itself may be left out.
        if authority.subject.der != authority.issuer.der:
            yield der


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
