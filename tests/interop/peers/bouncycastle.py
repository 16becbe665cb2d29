"""Bouncy Castle, through `tests/interop/driver/Driver.java`: compiled once, and one Java machine for all requests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cms.people import authority_der, person, private_key
from tests.interop.ours import head
from tests.interop.peers import PeerError, run
from tests.interop.rows import CONTENT, ENTITY, PASSWORD, SECRET_KEY, SECRET_KEY_ID, Row

__all__ = ["JARS", "BouncyCastle"]

JARS = [Path("/usr/share/java") / f"{name}.jar" for name in ("bcprov", "bcutil", "bcpkix", "bcmail", "javax.mail", "javax.activation")]
DRIVER = sorted((Path(__file__).resolve().parents[1] / "driver").glob("*.java"))


class BouncyCastle:
    """A Java machine that answers line by line; `close()` ends it."""

    name = "Bouncy Castle"

    def __init__(self, folder: Path, *, java: str = "java", javac: str = "javac") -> None:
        self._folder = folder
        path = ":".join(map(str, (*JARS, folder)))
        run(javac, "-nowarn", "-d", folder, "-cp", path, *DRIVER)
        self._machine = subprocess.Popen(
            [java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", path, "Driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._version = self._line()
        (folder / "content").write_bytes(CONTENT)
        (folder / "ca.crt").write_bytes(authority_der())

    def close(self) -> None:
        """End the Java machine."""
        self._machine.communicate(timeout=30)

    def version(self) -> str:
        """Like "Bouncy Castle 1.72"."""
        return f"Bouncy Castle {'.'.join(self._version.split('.')[:2])}"

    def _line(self) -> str:
        assert self._machine.stdout is not None
        return self._machine.stdout.readline().strip()

    def _ask(self, operation: str, row: Row, **more: str) -> bytes:
        out = self._folder / "out"
        out.unlink(missing_ok=True)
        for kind in row.people:
            (self._folder / f"{kind}.crt").write_bytes(person(kind).certificate or b"")
            (self._folder / f"{kind}.key").write_bytes(private_key(kind))
        given = {"folder": self._folder, "content": self._folder / "content", "out": out, "people": ",".join(row.people), "form": row.form}
        given |= {"cipher": row.cipher, **more}
        assert self._machine.stdin is not None
        self._machine.stdin.write("\t".join([operation, *(f"{name}={value}" for name, value in given.items())]) + "\n")
        self._machine.stdin.flush()
        answer = self._line()
        if answer != "ok":
            raise PeerError(f"{operation} {row.name}\n{answer}")
        return out.read_bytes()

    def write(self, row: Row) -> bytes:
        """What Bouncy Castle makes of the content."""
        if row.layers:
            if "auth-enveloped" in row.layers:
                raise PeerError("no option")
            (self._folder / "entity").write_bytes(ENTITY)
            written = self._ask("message", row, content=str(self._folder / "entity"), layers=",".join(row.layers))
            return head(row) + written
        other = {"compressed": "compress", "digested": "digest", "authenticated": "authenticate", "certs-only": "certs-only"}
        if row.form in other:
            return self._ask(other[row.form], row)
        if row.form == "encrypted-data":
            return self._ask("encrypt-data", row, secret=SECRET_KEY.hex())
        if row.signed:
            return self._ask("sign", row, algorithms=",".join(_algorithm(row, kind) for kind in row.people))
        agreement = {"x25519": "hkdf-sha256", "x448": "hkdf-sha512"}.get(row.people[0], row.digest + "+cofactor" * row.cofactor)
        keys = {"how": row.how, "password": PASSWORD, "secret": SECRET_KEY.hex(), "secret-id": SECRET_KEY_ID.hex()}
        oaep = {"padding": row.padding, "digest": row.digest, "mask": row.mask_digest or row.digest, "label": row.label.decode()}
        return self._ask("encrypt", row, agreement=agreement, wrap=row.wrap or row.cipher, **keys, **oaep)

    def read(self, row: Row, cms: bytes, outside: bytes = CONTENT) -> bytes:
        """The content, by Bouncy Castle; `outside` is what a detached signature is for."""
        source = self._folder / "in"
        source.write_bytes(cms)
        (self._folder / "outside").write_bytes(outside)
        if row.layers:
            return self._ask("read-message", row, **{"in": str(source), "layers": ",".join(row.layers)})
        operation = {"compressed": "uncompress", "certs-only": "list"}.get(row.form, "verify" if row.signed else "decrypt")
        return self._ask(operation, row, **{"in": str(source), "content": str(self._folder / "outside")})


def _algorithm(row: Row, kind: str) -> str:
    """The name by which Java knows the signature."""
    family = kind.split("-")[0]
    if family in ("ed25519", "ed448", "ml"):
        return kind.upper() if family == "ml" else kind.capitalize()
    if row.padding == "pss" and (row.mask_digest or row.salt is not None):
        raise PeerError("the names of its algorithms fix mask and salt")
    key = {"rsa": "RSA", "dsa": "DSA"}.get(family, "ECDSA")
    return f"{row.digest.upper()}with{key}{'andMGF1' if row.padding == 'pss' else ''}"
