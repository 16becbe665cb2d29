"""The program `cmsutil` of NSS, Thunderbird's library, over a database of its own with everybody's keys."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.cms.people import authority_der, person, private_key
from tests.interop.peers import PeerError, run
from tests.interop.rows import CONTENT, SECTIONS, Row

__all__ = ["Nss"]


class Nss:
    """Keys are imported when first asked for."""

    name = "NSS"

    def __init__(self, folder: Path, *, certutil: str = "certutil", pk12util: str = "pk12util", cmsutil: str = "cmsutil") -> None:
        self._pk12util, self._cmsutil = pk12util, cmsutil
        self._folder = folder
        self._database = f"sql:{folder}"
        self._known: dict[str, PeerError | None] = {}
        (folder / "ca.der").write_bytes(authority_der())
        (folder / "content").write_bytes(CONTENT)
        run(certutil, "-N", "-d", self._database, "--empty-password")
        run(certutil, "-A", "-d", self._database, "-n", "ca", "-t", ",C,", "-i", folder / "ca.der")

    def version(self) -> str:
        """Like "NSS 3.87". No program of NSS tells it; the library does."""
        return f"NSS {_version()}"

    def _nickname(self, kind: str) -> str:
        if kind not in self._known:
            self._known[kind] = self._import(kind)
        failure = self._known[kind]
        if failure is not None:
            raise failure
        return kind

    def _import(self, kind: str) -> PeerError | None:
        key = serialization.load_der_private_key(private_key(kind), None)
        certificate = x509.load_der_x509_certificate(person(kind).certificate or b"")
        protection = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(1000).build(b"x")
        try:
            store = pkcs12.serialize_key_and_certificates(kind.encode(), key, certificate, None, protection)
        except TypeError as error:
            return PeerError(f"its keys do not fit into PKCS #12: {error}")
        (self._folder / "store.p12").write_bytes(store)
        try:
            run(self._pk12util, "-i", self._folder / "store.p12", "-d", self._database, "-W", "x")
        except PeerError as error:
            return error
        return None

    def _cms(self, *arguments: str) -> bytes:
        return run(self._cmsutil, arguments[0], "-d", self._database, *arguments[1:], cwd=self._folder)

    def write(self, row: Row) -> bytes:
        """What `cmsutil` makes of the content."""
        out = self._folder / "written"
        out.unlink(missing_ok=True)
        self._cms(*self._writing(row), "-o", out.name)
        return out.read_bytes()

    def _writing(self, row: Row) -> list[str]:
        if row.layers:
            raise PeerError("no option")
        names = [self._nickname(kind) for kind in row.people]
        if row.form == "certs-only":
            return ["-O", "-r", ",".join(names)]
        if row.signed and len(names) == 1 and not row.padding and row.form in ("", "detached"):
            return ["-S", "-N", names[0], "-H", row.digest.upper(), "-G", *(["-T"] if row.form else []), "-i", "content"]
        # It chooses AES-128-CBC itself.
        fits = row.cipher == "aes-128-cbc" or (row.cipher == "aes-256-cbc" and row.section == SECTIONS[3])
        if not row.signed and not row.how and not row.padding and row.form == "" and fits:
            return ["-E", *(word for name in names for word in ("-r", name)), "-i", "content"]
        raise PeerError("no option")

    def read(self, row: Row, cms: bytes, outside: bytes = CONTENT) -> bytes:
        """The content, by `cmsutil`; `outside` is what a detached signature is for."""
        if row.layers:
            raise PeerError("no option")
        (self._folder / "read").write_bytes(cms)
        (self._folder / "outside").write_bytes(outside)
        if not row.signed:
            for kind in row.people:
                self._nickname(kind)
        outside = ["-c", "outside"] if row.form == "detached" else []
        return self._cms("-D", "-i", "read", *outside)


def _version() -> str:
    library = next(iter(Path("/usr/lib").glob("*/libnss3.so")), Path("/usr/lib64/libnss3.so"))
    found = re.search(rb"Version: NSS (\d+\.\d+)", library.read_bytes()) if library.exists() else None
    return found[1].decode() if found else "of unknown version"
