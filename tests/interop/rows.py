"""What is exchanged with other people's programs: one row for each algorithm and form. `cells` crosses them with the peers.

Content is the same everywhere; a row says how it is protected, in words that mailsec and every peer's driver translate into their own.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONTENT", "ENTITY", "PASSWORD", "ROWS", "SECRET_KEY", "SECRET_KEY_ID", "SECTIONS", "Row"]

CONTENT = b"Content-Type: text/plain; charset=us-ascii\r\n\r\nread me elsewhere\r\n"
PASSWORD = "correct horse"
ENTITY = b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + b"read me elsewhere\r\n" * 40
"""What whole messages hold: long enough to be worth compressing."""
SECRET_KEY = bytes(range(32))
SECRET_KEY_ID = b"\xc0\xff\xee"


@dataclass(frozen=True, slots=True)
class Row:
    """One way to protect the content."""

    name: str
    """Unique; the test's id."""
    title: str
    """As the page says it."""
    section: str
    """A name of `SECTIONS`."""
    people: tuple[str, ...] = ("rsa-2048",)
    """Who signs or receives, by the kind of key (`tests/cms/people.py`)."""
    digest: str = "sha256"
    """Of a signature; of OAEP; of the derivation of a key agreement."""
    padding: str = ""
    """ "pss" or "oaep" for RSA; else PKCS #1 v1.5."""
    mask_digest: str = ""
    """Of MGF1 where it is not `digest`."""
    salt: int | None = None
    """Octets of RSASSA-PSS's, where it is not as long as the digest."""
    label: bytes = b""
    """Of OAEP."""
    cofactor: bool = False
    form: str = ""
    """How it is laid out: "detached", "key-id", "no-attributes", "no-certificates", "stream", "signing-certificate", "counter-signed"."""
    cipher: str = "aes-256-cbc"
    wrap: str = ""
    """The key wrap of a key agreement, where it is not the one that fits the cipher."""
    how: str = ""
    """The key of encrypted content where it is not a person's: "password", "shared-key"."""
    written: bool = True
    """False for what mailsec reads only."""
    layers: tuple[str, ...] = ()
    """Of a whole message, from the inside out: "signed", "opaque", "enveloped", "auth-enveloped", "compressed"."""
    legacy: bool = False
    """Read with `--allow-legacy` only; without it refused, and the weak algorithm named."""

    @property
    def signed(self) -> bool:
        """True where this is a signature."""
        return self.section in ("signatures", "forms of signed messages")


SECTIONS = ("signatures", "forms of signed messages", "content ciphers", "keys of encrypted content", "other content types", "messages")


def _signatures() -> list[Row]:
    section = SECTIONS[0]
    rows = [Row(f"rsa-{digest}", f"RSA PKCS #1 v1.5 with {_named(digest)}", section, digest=digest) for digest in _SHA2]
    rows += [Row(f"pss-{digest}", f"RSASSA-PSS with {_named(digest)}", section, digest=digest, padding="pss") for digest in _SHA2]
    rows += [
        Row("pss-mgf1-sha1", "RSASSA-PSS with SHA-256, MGF1 with SHA-1", section, padding="pss", mask_digest="sha1", written=False),
        Row("pss-mgf1-sha512", "RSASSA-PSS with SHA-256, MGF1 with SHA-512", section, padding="pss", mask_digest="sha512", written=False),
        Row("pss-no-salt", "RSASSA-PSS with SHA-256, no salt", section, padding="pss", salt=0, written=False),
        Row("pss-salt-64", "RSASSA-PSS with SHA-256, a salt of 64 octets", section, padding="pss", salt=64, written=False),
    ]
    rows += [Row(f"ecdsa-{kind}", f"ECDSA, {name}, {_named(digest)}", section, (kind,), digest) for kind, name, digest in _CURVES]
    rows += [Row("ecdsa-secp256k1", "ECDSA, secp256k1, SHA-256", section, ("secp256k1",))]
    rows += [Row("ecdsa-p224", "ECDSA, P-224, SHA-256", section, ("p224",), written=False)]
    rows += [Row("ed25519", "Ed25519", section, ("ed25519",), "sha512"), Row("ed448", "Ed448", section, ("ed448",), "shake256")]
    rows += [Row(kind, kind.upper(), section, (kind,), "sha512") for kind in ("ml-dsa-44", "ml-dsa-65", "ml-dsa-87")]
    rows += [
        Row("rsa-sha224", "RSA PKCS #1 v1.5 with SHA-224", section, digest="sha224", written=False),
        Row("rsa-sha3-256", "RSA PKCS #1 v1.5 with SHA3-256", section, digest="sha3-256", written=False),
        Row("rsa-sha1", "RSA PKCS #1 v1.5 with SHA-1 (legacy)", section, digest="sha1", written=False, legacy=True),
        Row("rsa-md5", "RSA PKCS #1 v1.5 with MD5 (legacy)", section, digest="md5", written=False, legacy=True),
        Row("dsa", "DSA with SHA-256 (legacy)", section, ("dsa-2048",), written=False, legacy=True),
    ]
    return rows


def _forms() -> list[Row]:
    section, two = SECTIONS[1], ("rsa-2048", "p256")
    return [
        Row("detached", "detached, RSA", section, form="detached"),
        Row("detached-p256", "detached, ECDSA", section, ("p256",), form="detached"),
        Row("two-signers", "two signers", section, two),
        Row("two-signers-detached", "two signers, detached", section, two, form="detached"),
        Row("signed-stream", "content in BER chunks", section, form="stream", written=False),
        Row("key-id", "signer named by key identifier", section, form="key-id", written=False),
        Row("no-attributes", "without signed attributes", section, form="no-attributes", written=False),
        Row("no-certificates", "without certificates", section, form="no-certificates", written=False),
        Row("signing-certificate", "with signing-certificate-v2", section, form="signing-certificate"),
        Row("counter-signed", "counter-signed", section, form="counter-signed", written=False),
        Row("certs-only", "certificates alone (certs-only)", section, form="certs-only"),
    ]


def _ciphers() -> list[Row]:
    section = SECTIONS[2]
    plain = [f"aes-{size}-{mode}" for mode in ("cbc", "gcm") for size in (128, 192, 256)]
    rows = [Row(name, name.upper(), section, cipher=name) for name in plain]
    rows += [Row(name, name.upper(), section, cipher=name, written=False) for name in ("aes-128-ccm", "aes-192-ccm", "aes-256-ccm")]
    old = (("3des-cbc", "triple DES"), ("rc2-128-cbc", "RC2, 128 bits"), ("rc2-40-cbc", "RC2, 40 bits"))
    rows += [Row(name, f"{title} (legacy)", section, cipher=name, written=False, legacy=True) for name, title in old]
    return [*rows, Row("encrypted-stream", "content in BER chunks", section, form="stream", written=False)]


def _keys() -> list[Row]:
    section = SECTIONS[3]
    rows = [Row("rsa-v1.5", "RSA PKCS #1 v1.5, 3072 bits", section, ("rsa-3072",))]
    rows += [
        Row(f"oaep-{digest}", f"RSA OAEP with {_named(digest)}", section, digest=digest, padding="oaep") for digest in ("sha1", *_SHA2)
    ]
    rows += [
        Row("oaep-mask", "RSA OAEP, SHA-256, MGF1 with SHA-1", section, padding="oaep", mask_digest="sha1"),
        Row("oaep-label", "RSA OAEP with a label", section, padding="oaep", label=b"label"),
        Row("oaep-gcm", "RSA OAEP, AES-128-GCM (edi-energy)", section, padding="oaep", cipher="aes-128-gcm"),
    ]
    rows += [Row(f"ecdh-{kind}", f"ECDH, {name}, {_named(digest)}", section, (kind,), digest) for kind, name, digest in _CURVES]
    rows += [
        Row(f"ecdh-kdf-{digest}", f"ECDH, P-256, derivation with {_named(digest)}", section, ("p256",), digest, written=False)
        for digest in ("sha1", "sha224", "sha384", "sha512")
    ]
    rows += [
        Row(
            f"ecdh-cofactor-{digest}",
            f"ECDH with cofactor, P-256, {_named(digest)}",
            section,
            ("p256",),
            digest,
            cofactor=True,
            written=False,
        )
        for digest in ("sha1", "sha256", "sha512")
    ]
    rows += [
        Row("ecdh-wrap", "ECDH, P-256, AES-256-CBC under an AES-128 key wrap", section, ("p256",), wrap="aes-128-wrap", written=False),
        Row("ecdh-gcm", "ECDH, P-256, AES-256-GCM", section, ("p256",), cipher="aes-256-gcm"),
        Row("ecdh-3des", "ECDH, P-256, triple DES (legacy)", section, ("p256",), "sha1", cipher="3des-cbc", written=False, legacy=True),
        Row("x25519", "X25519 with HKDF", section, ("x25519",)),
        Row("x448", "X448 with HKDF", section, ("x448",), "sha512"),
        Row("ml-kem-768", "ML-KEM-768", section, ("ml-kem-768",)),
        Row("ml-kem-1024", "ML-KEM-1024", section, ("ml-kem-1024",)),
        Row("two-recipients", "RSA and ECDH recipients of one message", section, ("rsa-2048", "p256")),
        Row("recipient-key-id", "recipient named by key identifier", section, form="key-id", written=False),
        Row("recipient-key-id-p256", "ECDH recipient named by key identifier", section, ("p256",), form="key-id", written=False),
        Row("password", "password (RFC 3211)", section, how="password", written=False),
        Row("password-aes-128", "password, AES-128", section, cipher="aes-128-cbc", how="password", written=False),
        Row("shared-key", "shared key (KEK), AES-256 key wrap", section, how="shared-key", written=False),
    ]
    return rows


def _others() -> list[Row]:
    section = SECTIONS[4]
    return [
        Row("compressed", "CompressedData", section, form="compressed"),
        Row("encrypted-data", "EncryptedData", section, form="encrypted-data", written=False),
        Row("digested", "DigestedData (named and reported)", section, form="digested", written=False),
        Row("authenticated", "AuthenticatedData (named and reported)", section, form="authenticated", written=False),
    ]


def _messages() -> list[Row]:
    section = SECTIONS[5]
    layers = {
        "multipart/signed": ("signed",),
        "application/pkcs7-mime, signed-data": ("opaque",),
        "enveloped-data": ("enveloped",),
        "authEnveloped-data": ("auth-enveloped",),
        "multipart/signed, encrypted": ("signed", "enveloped"),
        "signed-data, encrypted": ("opaque", "enveloped"),
        "multipart/signed, compressed, encrypted": ("signed", "compressed", "enveloped"),
        "triple wrap": ("signed", "enveloped", "signed"),
    }
    return [Row(f"message-{'-'.join(found)}", title, section, layers=found) for title, found in layers.items()]


_SHA2 = ("sha256", "sha384", "sha512")
_CURVES = (
    ("p256", "P-256", "sha256"),
    ("p384", "P-384", "sha384"),
    ("p521", "P-521", "sha512"),
    ("brainpool256", "brainpoolP256r1", "sha256"),
    ("brainpool384", "brainpoolP384r1", "sha384"),
    ("brainpool512", "brainpoolP512r1", "sha512"),
)


def _named(digest: str) -> str:
    return digest.upper().replace("SHA", "SHA-")


ROWS = (*_signatures(), *_forms(), *_ciphers(), *_keys(), *_others(), *_messages())
