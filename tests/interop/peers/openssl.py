"""The program `openssl cms`."""

from __future__ import annotations

from pathlib import Path

from tests.cms.people import authority_der, pem, person, private_key
from tests.interop.ours import head
from tests.interop.peers import PeerError, run
from tests.interop.rows import CONTENT, ENTITY, PASSWORD, SECRET_KEY, SECRET_KEY_ID, Row

__all__ = ["OpenSsl"]


class OpenSsl:
    """Works in a folder of its own, where each person's certificate and key are written when first asked for."""

    name = "OpenSSL"

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        (folder / "ca.pem").write_bytes(pem(authority_der(), "CERTIFICATE"))
        (folder / "content").write_bytes(CONTENT)

    def version(self) -> str:
        """Like "OpenSSL 3.0"."""
        return ".".join(run(self._program, "version").decode().split(" (")[0].split(".")[:2])

    def _cms(self, *arguments: str) -> bytes:
        return run(self._program, "cms", *arguments, cwd=self._folder)

    def _files(self, kind: str) -> tuple[str, str]:
        certificate, key = f"{kind}.crt", f"{kind}.key"
        if not (self._folder / key).exists():
            (self._folder / certificate).write_bytes(pem(person(kind).certificate, "CERTIFICATE"))
            (self._folder / key).write_bytes(pem(private_key(kind), "PRIVATE KEY"))
        return certificate, key

    def write(self, row: Row) -> bytes:
        """What `openssl cms` makes of the content."""
        if row.layers:
            return self._message(row)
        if row.form in ("counter-signed", "authenticated"):
            raise PeerError("no option")
        if row.form == "certs-only":
            return self._certs_only(row)
        out = self._folder / "written"
        self._cms(*self._writing(row), "-binary", "-in", "content", "-outform", "DER", "-out", out.name)
        return out.read_bytes()

    def _writing(self, row: Row) -> list[str]:
        if row.form in ("compressed", "digested"):
            return ["-compress" if row.form == "compressed" else "-digest_create"]
        if row.form == "encrypted-data":
            return ["-EncryptedData_encrypt", "-aes-256-cbc", "-secretkey", SECRET_KEY.hex()]
        return self._signing(row) if row.signed else self._encrypting(row)

    def _signing(self, row: Row) -> list[str]:
        words = ["-sign"]
        for kind in row.people:
            certificate, key = self._files(kind)
            words += ["-signer", certificate, "-inkey", key]
            if row.padding == "pss":
                words += ["-keyopt", "rsa_padding_mode:pss", "-keyopt", f"rsa_pss_saltlen:{-1 if row.salt is None else row.salt}"]
                words += ["-keyopt", f"rsa_mgf1_md:{row.mask_digest or row.digest}"]
        if not row.people[0].startswith(("ed", "ml-")):
            words += ["-md", row.digest]
        forms = {
            "stream": ["-stream"],
            "key-id": ["-keyid"],
            "no-attributes": ["-noattr"],
            "no-certificates": ["-nocerts"],
            "signing-certificate": ["-cades"],
        }
        return [*words, *([] if row.form == "detached" else ["-nodetach"]), *forms.get(row.form, [])]

    def _encrypting(self, row: Row) -> list[str]:
        cipher = {"3des-cbc": "des3", "rc2-128-cbc": "rc2-128", "rc2-40-cbc": "rc2-40"}.get(row.cipher, row.cipher)
        words = ["-encrypt", f"-{cipher}", *(["-provider", "legacy", "-provider", "default"] if cipher.startswith("rc2") else [])]
        words += {"stream": ["-stream"], "key-id": ["-keyid"]}.get(row.form, [])
        words += ["-aes128-wrap"] if row.wrap else []
        if row.how == "password":
            return [*words, "-pwri_password", PASSWORD]
        if row.how == "shared-key":
            return [*words, "-secretkey", SECRET_KEY.hex(), "-secretkeyid", SECRET_KEY_ID.hex()]
        for kind in row.people:
            words += ["-recip", self._files(kind)[0]]
            if row.padding == "oaep":
                words += ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", f"rsa_oaep_md:{row.digest}"]
                words += ["-keyopt", f"rsa_mgf1_md:{row.mask_digest or row.digest}"]
                words += ["-keyopt", f"rsa_oaep_label:{row.label.hex()}"] if row.label else []
            elif kind == "p256":
                words += ["-keyopt", f"ecdh_kdf_md:{row.digest}", "-keyopt", f"ecdh_cofactor_mode:{int(row.cofactor)}"]
        return words

    def _certs_only(self, row: Row) -> bytes:
        certificates = ["-certfile", "ca.pem", *(word for kind in row.people for word in ("-certfile", self._files(kind)[0]))]
        return run(self._program, "crl2pkcs7", "-nocrl", *certificates, "-outform", "DER", cwd=self._folder)

    def read(self, row: Row, cms: bytes, outside: bytes = CONTENT) -> bytes:
        """The content, by `openssl cms` (for certs-only: the certificates that it lists); `outside` is what a detached signature is for."""
        if row.layers:
            return self._entity(row, cms)
        (self._folder / "read").write_bytes(cms)
        (self._folder / "outside").write_bytes(outside)
        given = ["-inform", "DER", "-in", "read", "-binary"]
        if row.form == "compressed":
            return self._cms("-uncompress", *given)
        if row.form == "certs-only":
            return run(self._program, "pkcs7", "-inform", "DER", "-in", "read", "-print_certs", cwd=self._folder)
        if row.signed:
            outside = ["-content", "outside"] if row.form == "detached" else []
            return self._cms("-verify", *given, *outside, "-CAfile", "ca.pem", "-purpose", "any")
        found = {self._cms("-decrypt", *given, "-recip", one, "-inkey", key) for one, key in map(self._files, row.people)}
        return found.pop() if len(found) == 1 else b""

    def _message(self, row: Row) -> bytes:
        certificate, key = self._files(row.people[0])
        content = ENTITY
        for layer in row.layers:
            (self._folder / "entity").write_bytes(content)
            signing = ["-sign", "-signer", certificate, "-inkey", key, *(["-nodetach"] if layer == "opaque" else [])]
            cipher = "-aes-256-gcm" if layer == "auth-enveloped" else "-aes-256-cbc"
            words = {"signed": signing, "opaque": signing, "compressed": ["-compress"]}.get(
                layer, ["-encrypt", cipher, "-recip", certificate]
            )
            self._cms(*words, "-binary", "-crlfeol", "-in", "entity", "-out", "layer")
            content = (self._folder / "layer").read_bytes()
        return head(row).replace(b"MIME-Version: 1.0\r\n", b"") + content

    def _entity(self, row: Row, message: bytes) -> bytes:
        certificate, key = self._files(row.people[0])
        content = message
        for layer in reversed(row.layers):
            (self._folder / "layer").write_bytes(content)
            verifying = ["-verify", "-CAfile", "ca.pem", "-purpose", "any"]
            words = {"signed": verifying, "opaque": verifying, "compressed": ["-uncompress"]}.get(
                layer, ["-decrypt", "-recip", certificate, "-inkey", key]
            )
            # Of multipart/signed it drops each CR as it reads, and puts it back for the digest unless -binary forbids it.
            content = self._cms(*words, *([] if layer == "signed" else ["-binary"]), "-in", "layer")
        return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
