"""Key records in DNS (RFC 6376 §3.6.1, RFC 8463 §4.2): a public key, and what its domain says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from mailsec.algorithms.public_keys import public_key_facts
from mailsec.asn1 import writer
from mailsec.asn1.reader import INTEGER, SEQUENCE, read_single
from mailsec.errors import MailsecError
from mailsec_dkim.result import PERMERROR, POLICY, Fault
from mailsec_dkim.signature import ALGORITHMS, Signature
from mailsec_dkim.tags import TagError, base64_octets, read_tags

__all__ = ["WEAK_BITS", "PublicKey", "choose_key"]

WEAK_BITS = 1024
"""RFC 8301 §3.2: signatures with shorter RSA keys must not be held for valid."""
_KEY = re.compile(rb"(?:\A|;)[ \t]*p[ \t]*=")
_ED25519 = bytes.fromhex("302a300506032b6570032100")
"""SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 §4), up to the key itself."""
_RSA_ENCRYPTION = writer.sequence(writer.oid("1.2.840.113549.1.1.1"), writer.NULL)


class PublicKey(NamedTuple):
    """What a signature is checked with."""

    spki: bytes
    """DER of its SubjectPublicKeyInfo."""
    bits: int
    testing: bool


def choose_key(records: Sequence[object], signature: Signature) -> PublicKey:
    """The key of the one key record among the TXT records of `Signature.record`. Raise Fault."""
    texts = [text for text in records if isinstance(text, bytes) and _KEY.search(text)]
    if not texts:
        raise Fault(PERMERROR, "no-key", f"there is no key at {signature.record}")
    if len(texts) > 1:
        # RFC 6376 §3.6.2.2: what several records mean is not defined
        raise Fault(PERMERROR, "no-key", f"there are several keys at {signature.record}")
    try:
        return _read(texts[0], signature)
    except (TagError, MailsecError) as error:
        raise Fault(PERMERROR, "key-malformed", f"the key at {signature.record} cannot be read: {error}") from None


def _read(text: bytes, signature: Signature) -> PublicKey:
    tags = read_tags(text)
    value = {name: tag.value for name, tag in tags.items()}
    if "v" in value and (value["v"] != "DKIM1" or next(iter(value)) != "v"):
        raise TagError("another version")
    if "p" not in value:
        raise TagError("there is no p=")
    if not value["p"]:
        # RFC 6376 §3.6.1: an empty value means that the key has been revoked
        raise Fault(PERMERROR, "key-revoked", f"the key at {signature.record} was revoked")
    kind = value.get("k", "rsa").lower()
    if kind != ALGORITHMS[signature.algorithm]:
        raise Fault(PERMERROR, "key-type", f"the key at {signature.record} is of another kind than the signature")
    if "h" in value and "sha256" not in _words(value["h"]):
        raise Fault(PERMERROR, "key-type", f"the key at {signature.record} is not for sha256")
    if not {"*", "email"} & set(_words(value.get("s", "*"))):
        raise Fault(PERMERROR, "key-type", f"the key at {signature.record} is not for mail")
    flags = _words(value.get("t", ""))
    if "s" in flags and signature.identity.rpartition("@")[2].lower() != signature.domain:
        raise Fault(PERMERROR, "identity", "the domain allows no subdomain in i=")
    octets = base64_octets(value["p"])
    if kind == "ed25519":
        # RFC 8463 §4.2: the key itself, without a wrapper
        if len(octets) != 32:
            raise TagError("an Ed25519 key has 32 octets")
        return PublicKey(_ED25519 + octets, 256, "y" in flags)
    spki = _spki(octets)
    facts = public_key_facts(spki)
    if facts.key_type != "rsa":
        raise TagError(f"a key of the type {facts.key_type}")
    if facts.bits < WEAK_BITS:
        raise Fault(POLICY, "weak-key", f"the key at {signature.record} has only {facts.bits} bits")
    return PublicKey(spki, facts.bits, "y" in flags)


def _spki(octets: bytes) -> bytes:
    """RFC 6376 §3.6.1 says RSAPublicKey; everybody publishes SubjectPublicKeyInfo, and verifiers take both."""
    children = list(read_single(octets, SEQUENCE).children())
    if children and children[0].tag == INTEGER:
        return writer.sequence(_RSA_ENCRYPTION, writer.bit_string(octets))
    return octets


def _words(text: str) -> list[str]:
    return [one.strip().lower() for one in text.split(":")]
