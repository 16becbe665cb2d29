"""What every provider of a kind must do, as functions that plugins' tests call with their own objects. They fail by AssertionError.

The one invariant: a contract asks only what the gateway relies on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mailsec.algorithms.profiles import PROFILES
from mailsec.errors import LocalProtocolError
from mailsec.interfaces import CertificateDirectory, FoundCertificate, KeyStore, RecipientDirectory, Scratch
from mailsec.keys.software import SoftwareBackend
from mailsec.model.address import Address
from mailsec.model.session import matches_pattern
from mailsec.x509.certificate import load_certificate

__all__ = ["check_certificate_directory", "check_key_store", "check_recipient_directory", "check_scratch"]

Run = Callable[[Awaitable[Any]], Any]


def check_key_store(store: KeyStore, run: Run, owner: Address, stranger: Address) -> None:
    """A key store that has a signing key for `owner` and none for `stranger`. `run` drives an awaitable to its end."""
    assert store.name
    handles = run(store.keys_for(owner, "sign"))
    assert handles, "there is no key for its owner"
    for handle in handles:
        assert any(matches_pattern(pattern, owner) for pattern in handle.assigned), "a key that is not assigned to whom it is offered for"
        assert not any(matches_pattern(pattern, stranger) for pattern in handle.assigned)
        assert handle.name and handle.certificate is not None
        found = run(store.key(handle.name))
        assert found is not None and found.certificate is not None, "a key is not found by the name that it bears"
        certificate = load_certificate(handle.certificate)
        mechanism = PROFILES["default"].signature_for(handle.key_type, handle.bits)
        assert handle.can(mechanism)
        signature = run(handle.sign(mechanism, b"octets to be signed"))
        backend = SoftwareBackend()
        assert backend.verify(certificate.spki, mechanism, signature, b"octets to be signed"), "the key is not the certificate's"
        assert not backend.verify(certificate.spki, mechanism, signature, b"other octets")
    assert not run(store.keys_for(stranger, "sign")) and not run(store.keys_for(stranger, "decrypt")), "a key is offered for a stranger"
    for reference in ("no such key", "", "pkcs11:object=none", "a\r\nb"):
        assert run(store.key(reference)) is None


def check_recipient_directory(directory: RecipientDirectory, run: Run, known: Address, unknown: Address, foreign: Address) -> None:
    """A directory that knows `known`, knows that `unknown` does not exist, and says nothing about `foreign`."""
    assert directory.name
    assert run(directory.exists(known)) is True
    assert run(directory.exists(Address(known.local_part.upper(), known.domain.upper()))) is True, "people are compared without case"
    assert run(directory.exists(unknown)) is False
    assert run(directory.exists(foreign)) is None, "a domain that is not ours is not answered for"


def check_certificate_directory(directory: CertificateDirectory, run: Run, known: Address, stranger: Address) -> None:
    """A directory that has a certificate of `known` and none of `stranger`."""
    assert directory.name
    found = run(directory.certificates(known))
    assert found and all(isinstance(one, FoundCertificate) for one in found), "nothing is found, or something else than FoundCertificate"
    for one in found:
        certificate = load_certificate(one.der)
        assert certificate.readable and one.source
        assert one.bound or one.trusted_binding or any(address.key == known.key for address in certificate.addresses)
    upper = Address(known.local_part.upper(), known.domain.upper())
    assert [one.der for one in run(directory.certificates(upper))] == [one.der for one in found], "people are compared without case"
    assert not run(directory.certificates(stranger)), "who is not known has no certificate: an error is for what cannot be said"


def check_scratch(make: Callable[[], Scratch], large: int = 600_000) -> None:
    """What `append` took, `seal` gives; small and large, in any pieces; discarded at any time."""
    for size in (0, 1, 4096, large):
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        scratch = make()
        for start in range(0, size, 50_000):
            scratch.append(memoryview(data)[start : start + 50_000])
        assert len(scratch) == size
        octets = scratch.seal()
        assert len(octets) == size and b"".join(octets.blocks()) == data
        assert bytes(octets.view(size // 2, size // 2 + 10)) == data[size // 2 : size // 2 + 10]
        assert octets.find(data[-5:]) == data.find(data[-5:])
        try:
            scratch.append(b"more")
        except LocalProtocolError:
            pass
        else:
            raise AssertionError("a scratch was written after it was sealed")
        scratch.discard()
        scratch.discard()
    unfinished = make()
    unfinished.append(b"x" * large)
    unfinished.discard()
