"""The program `gpgsm` of GnuPG, with a home of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.cms.people import authority_der, person, private_key
from tests.interop.peers import PeerError, run
from tests.interop.rows import CONTENT, PASSWORD, Row

__all__ = ["Gpgsm"]


class Gpgsm:
    """Keys are imported when first asked for, without a pass phrase. `close()` ends its agent."""

    name = "GnuPG"

    def __init__(self, home: Path, program: str = "gpgsm", gpgconf: str = "gpgconf") -> None:
        # The agent's socket lies in the home directory, and its path must be short.
        home.chmod(0o700)
        self._home, self._gpgconf = home, gpgconf
        self._common = (program, "--homedir", str(home), "--batch", "--yes", "--disable-crl-checks", "--disable-dirmngr")
        self._secret = ("--pinentry-mode", "loopback", "--passphrase-fd", "0")
        self._known: dict[str, PeerError | None] = {}
        (home / "content").write_bytes(CONTENT)
        (home / "trustlist.txt").write_text(f"{_fingerprint(authority_der())} S relax\n")
        (home / "ca.der").write_bytes(authority_der())
        run(*self._common, "--import", home / "ca.der")

    def close(self) -> None:
        """End what gpgsm started."""
        run(self._gpgconf, "--homedir", self._home, "--kill", "all")

    def version(self) -> str:
        """Like "GnuPG 2.2"."""
        line = run(self._common[0], "--version").decode().splitlines()[0]
        return "GnuPG " + ".".join(line.split()[-1].split(".")[:2])

    def _person(self, kind: str) -> str:
        if kind not in self._known:
            self._known[kind] = self._import(kind)
        failure = self._known[kind]
        if failure is not None:
            raise failure
        return _fingerprint(person(kind).certificate or b"")

    def _import(self, kind: str) -> PeerError | None:
        key = serialization.load_der_private_key(private_key(kind), None)
        certificate = x509.load_der_x509_certificate(person(kind).certificate or b"")
        builder = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(1000).hmac_hash(hashes.SHA1())
        protection = builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).build(b"x")
        (self._home / "certificate").write_bytes(person(kind).certificate or b"")
        try:
            run(*self._common, "--import", self._home / "certificate")
            if isinstance(key, ec.EllipticCurvePrivateKey):
                self._give_to_agent(kind, key)
                return None
            store = pkcs12.serialize_key_and_certificates(kind.encode(), key, certificate, None, protection)
            (self._home / "store.p12").write_bytes(store)
            run(*self._common, *self._secret, "--import", self._home / "store.p12", stdin=b"x\n")
        except TypeError as error:
            return PeerError(f"its keys do not fit into PKCS #12: {error}")
        except PeerError as error:
            return error
        return None

    def _give_to_agent(self, kind: str, key: ec.EllipticCurvePrivateKey) -> None:
        # gpgsm 2.2 ends with a segmentation fault at a PKCS #12 file with such a key: it is laid where the agent looks.
        listed = run(
            *self._common, "--with-colons", "--with-keygrip", "--list-keys", _fingerprint(person(kind).certificate or b"")
        ).decode()
        grip = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("grp:"))
        curve = {"secp256r1": "NIST P-256", "secp384r1": "NIST P-384", "secp521r1": "NIST P-521"}.get(key.curve.name, key.curve.name)
        size = (key.curve.key_size + 7) // 8
        point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        secret = key.private_numbers().private_value.to_bytes(size, "big")
        parts = [_list(b"curve", curve.encode()), _list(b"q", point), _list(b"d", b"\0" + secret)]
        folder = self._home / "private-keys-v1.d"
        folder.mkdir(exist_ok=True, mode=0o700)
        (folder / f"{grip}.key").write_bytes(b"(11:private-key(3:ecc" + b"".join(parts) + b"))")

    def write(self, row: Row) -> bytes:
        """What `gpgsm` makes of the content."""
        out = self._home / "written"
        out.unlink(missing_ok=True)
        run(*self._common, *self._secret, *self._writing(row), "--output", out, self._home / "content", stdin=b"x\n")
        return out.read_bytes()

    def _writing(self, row: Row) -> list[str]:
        if row.layers:
            raise PeerError("no option")
        if (
            row.section in ("other content types",)
            or row.how
            or row.form not in ("", "detached", "stream", "no-certificates")
            or row.padding
            or row.cofactor
        ):
            raise PeerError("no option")
        people = [self._person(kind) for kind in row.people]
        if row.signed:
            words = [word for one in people for word in ("--local-user", one)]
            words += ["--include-certs", "0"] if row.form == "no-certificates" else []
            return ["--digest-algo", row.digest.upper(), *words, "--sign", *(["--detach-sign"] if row.form == "detached" else [])]
        cipher = {"3des-cbc": "3DES", "rc2-128-cbc": "RC2", "rc2-40-cbc": "RFC2268_40"}.get(row.cipher, row.cipher)
        cipher = cipher.removesuffix("-cbc").replace("aes-", "AES")
        return ["--cipher-algo", cipher, *(word for one in people for word in ("--recipient", one)), "--encrypt"]

    def read(self, row: Row, cms: bytes, outside: bytes = CONTENT) -> bytes:
        """The content, by `gpgsm`; of a detached signature that is right, what it was given as `outside`."""
        if row.layers:
            raise PeerError("no option")
        source, out = self._home / "read", self._home / "out"
        source.write_bytes(cms)
        out.unlink(missing_ok=True)
        if not row.signed:
            for kind in row.people:
                self._person(kind)
            run(*self._common, *self._secret, "--output", out, "--decrypt", source, stdin=(PASSWORD if row.how else "x").encode() + b"\n")
            return out.read_bytes()
        if row.form == "certs-only":
            run(*self._common, "--import", source)
            return b""
        if row.form == "detached":
            (self._home / "outside").write_bytes(outside)
            run(*self._common, "--verify", source, self._home / "outside")
            return outside
        run(*self._common, "--output", out, "--verify", source)
        return out.read_bytes()


def _fingerprint(certificate: bytes) -> str:
    return hashlib.sha1(certificate, usedforsecurity=False).hexdigest().upper()


def _list(*words: bytes) -> bytes:
    """A canonical S-expression."""
    return b"(" + b"".join(b"%d:%s" % (len(word), word) for word in words) + b")"
