"""`mailsec smime sign` and `verify`: JSON, exit codes, files of every kind, and what a start may not import."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_der_private_key, pkcs12
from cryptography.x509 import load_der_x509_certificate

from mailsec.app import cli
from mailsec.app.output import Output
from mailsec.keys.files import pem
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

AT = datetime.now(UTC)
MESSAGE = "From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: Minutes\n\nGood day.\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A CA, Alice's key and certificate in every form, a stranger's CA, a database."""
    folder = tmp_path_factory.mktemp("smime")
    ca_key, key = make_key("ec-p256"), make_key("ec-p256")
    ca = make_ca(common_name="Test CA", key=ca_key, at=AT, random=os.urandom)
    certificate = issue_mail(
        IssuedBy(ca, ca_key), addresses=[Address.parse("alice@example.org")], public_key=public_key_of(key), at=AT, random=os.urandom
    )
    (folder / "ca.pem").write_bytes(pem(ca, "CERTIFICATE"))
    (folder / "alice.pem").write_bytes(pem(certificate, "CERTIFICATE"))
    (folder / "alice.der").write_bytes(certificate)
    (folder / "alice.key").write_bytes(pem(key, "PRIVATE KEY"))
    (folder / "other.key").write_bytes(pem(make_key("ec-p256"), "PRIVATE KEY"))
    (folder / "stranger.pem").write_bytes(
        pem(make_ca(common_name="Stranger", key=make_key("ec-p256"), at=AT, random=os.urandom), "CERTIFICATE")
    )
    store = pkcs12.serialize_key_and_certificates(
        b"alice", load_der_private_key(key, None), load_der_x509_certificate(certificate), None, BestAvailableEncryption(b"p12-secret")
    )
    (folder / "alice.p12").write_bytes(store)
    (folder / "p12-password").write_text("p12-secret\n")
    (folder / "message.eml").write_text(MESSAGE)
    folder.chmod(0o700)
    (folder / "passphrase").write_text("internal:a pass phrase\n")
    with CertDb.create(str(folder / "mailsec.db"), b"a pass phrase", at=AT, cost=2**10) as database:
        database.add(ca, "CA", trust=TrustFlags.parse(",C,"), domains=["example.org"], at=AT)
        database.add(certificate, "alice", private_key=key, at=AT)
    return folder


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    previous = Path.cwd()
    os.chdir(folder)
    try:
        return cli.run(arguments, Output(out, err)), out.getvalue(), err.getvalue()
    finally:
        os.chdir(previous)


def sign(folder: Path, target: str, *options: str) -> None:
    options = options or ("--key", "alice.key", "--cert", "alice.pem")
    code, out, err = run(folder, "smime", "sign", "--json", *options, "-o", target, "message.eml")
    assert code == 0, err
    assert json.loads(out)["output"] == target


def verify(folder: Path, *arguments: str) -> tuple[int, dict]:
    code, out, _err = run(folder, "smime", "verify", "--json", *arguments)
    return code, json.loads(out)


SIGNERS = {
    "PEM": ("--key", "alice.key", "--cert", "alice.pem"),
    "DER": ("--key", "alice.key", "--cert", "alice.der"),
    "PKCS#12": ("--p12", "alice.p12", "--p12-password-file", "p12-password"),
    "nickname": ("-d", "mailsec.db", "--passphrase-file", "passphrase", "--signer", "alice"),
    "From": ("-d", "mailsec.db", "--passphrase-file", "passphrase"),
}


@pytest.mark.parametrize("form", ["--detached", "--opaque"])
@pytest.mark.parametrize("signer", SIGNERS)
def test_what_is_signed_is_trusted(files, signer, form, tmp_path):
    target = str(tmp_path / "signed.eml")
    sign(files, target, *SIGNERS[signer], form)
    signed = Path(target).read_bytes()
    assert signed.count(b"\n") == signed.count(b"\r\n"), "output has CRLF"
    code, verdict = verify(files, "--anchor", "ca.pem", target)
    assert code == 0
    expected = {"signed": True, "encrypted": False, "signature_valid": True, "chain_valid": True, "identity_match": True, "trusted": True}
    assert {name: verdict[name] for name in expected} == expected
    assert verdict["revocation"] == "not-checked" and verdict["text"] == "Good day." and verdict["error"] is None
    (report,) = verdict["layers"][0]["signers"]
    assert report["certificate"]["addresses"] == ["alice@example.org"]


def test_the_database_is_believed_within_its_domains(files, tmp_path):
    target = str(tmp_path / "signed.eml")
    sign(files, target)
    assert verify(files, "-d", "mailsec.db", "--passphrase-file", "passphrase", target)[0] == 0


def test_no_anchor_is_no_trust_and_says_so(files, tmp_path):
    target = str(tmp_path / "signed.eml")
    sign(files, target)
    code, verdict = verify(files, target)
    assert (code, verdict["trusted"], verdict["chain_valid"]) == (1, False, None)
    assert "no-anchor" in {reason["code"] for reason in verdict["reasons"]}


def test_a_changed_word_a_strangers_anchor_and_another_from_are_told_apart(files, tmp_path):
    target = tmp_path / "signed.eml"
    sign(files, str(target))
    genuine = target.read_bytes()
    cases = {
        "changed": (genuine.replace(b"Good day", b"Good bye"), "ca.pem", ("signature_valid", False)),
        "stranger": (genuine, "stranger.pem", ("chain_valid", False)),
        "another": (genuine.replace(b"Alice <alice@", b"Alice <carol@"), "ca.pem", ("identity_match", False)),
    }
    for octets, anchor, (answer, value) in cases.values():
        target.write_bytes(octets)
        code, verdict = verify(files, "--anchor", anchor, str(target))
        assert code == 1 and verdict["trusted"] is False and verdict[answer] is value
        assert verdict["reasons"] and all(reason["message"] for reason in verdict["reasons"])


def test_an_unsigned_message_does_not_apply(files):
    code, verdict = verify(files, "--anchor", "ca.pem", "message.eml")
    assert (code, verdict["signed"], verdict["signature_valid"], verdict["layers"]) == (1, False, None, [])


def test_an_expired_signature_at_an_instant(files, tmp_path):
    target = str(tmp_path / "signed.eml")
    sign(files, target)
    code, verdict = verify(files, "--anchor", "ca.pem", "--at", "2099-01-01T00:00:00Z", target)
    assert code == 1 and verdict["chain_valid"] is False


def test_bare_cms_is_read_as_der_and_pem_with_and_without_content(files, tmp_path, need):
    openssl = need("openssl")
    content = tmp_path / "content"
    content.write_bytes(b"some content\r\n")
    base = [
        openssl,
        "cms",
        "-sign",
        "-binary",
        "-in",
        str(content),
        "-signer",
        str(files / "alice.pem"),
        "-inkey",
        str(files / "alice.key"),
    ]
    for form, extra in (("DER", ["-nodetach"]), ("PEM", ["-nodetach"]), ("DER", [])):
        cms = tmp_path / "cms"
        subprocess.run([*base, *extra, "-outform", form, "-out", str(cms)], check=True, capture_output=True)
        options = ("--content", str(content)) if not extra else ()
        for chosen in ("auto", f"cms-{form.lower()}"):
            code, verdict = verify(files, "--anchor", "ca.pem", "--form", chosen, *options, str(cms))
            assert (code, verdict["trusted"], verdict["identity_match"]) == (0, True, None), verdict["reasons"]
            assert verdict["text"] == "some content\r\n"


def test_what_cannot_be_read_is_exit_3_with_one_object(files, tmp_path):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x30\x82\xff")
    for arguments in (
        ("--form", "cms-der", str(garbage)),
        ("--form", "cms-pem", "message.eml"),
        (str(tmp_path / "absent")),
        ("--anchor", "message.eml", "message.eml"),
    ):
        arguments = (arguments,) if isinstance(arguments, str) else arguments
        code, value = verify(files, *arguments)
        assert code == 3 and value["error"]["message"], value


def test_signing_errors_name_the_thing_and_the_next_step(files, tmp_path):
    target = str(tmp_path / "out.eml")
    cases = [
        (("--key", "other.key", "--cert", "alice.pem"), 3, "does not belong to the certificate"),
        (("--key", "alice.key"), 2, "--key and --cert need each other"),
        ((), 2, "nobody to sign was named"),
        (("--p12", "alice.p12"), 3, "pass phrase"),
        (("-d", "mailsec.db", "--passphrase-file", "passphrase", "--signer", "nobody"), 1, 'called "nobody"'),
        (("--key", "alice.key", "--cert", "alice.pem", "--profile", "nonsense"), 2, "there is no profile"),
        (("-c", "x.toml", "--key", "alice.key", "--cert", "alice.pem", "--password", "secret"), 2, "for test data only"),
    ]
    for options, expected, words in cases:
        code, _out, err = run(files, "smime", "sign", *options, "-o", target, "message.eml")
        assert code == expected and words in err, (options, err)
        assert not Path(target).exists()


def test_json_of_sign_needs_a_place_for_the_message(files):
    code, out, err = run(files, "smime", "sign", "--json", "--key", "alice.key", "--cert", "alice.pem", "message.eml")
    assert (code, out) == (2, "") and "-o FILE" in err


def test_people_are_told_in_words(files, tmp_path):
    target = str(tmp_path / "signed.eml")
    sign(files, target)
    code, out, _err = run(files, "smime", "verify", "--anchor", "ca.pem", target)
    assert code == 0 and out.startswith("signed.eml: trusted (smime=pass)") and "alice@example.org" in out
    code, out, _err = run(files, "smime", "verify", "--anchor", "stranger.pem", target)
    assert code == 1 and "NOT TRUSTED" in out and "(smime=policy)" in out and "✗ chains" in out


def test_verify_imports_only_what_it_uses(files, tmp_path):
    target = str(tmp_path / "signed.eml")
    sign(files, target)
    script = (
        "import sys; from mailsec.app import cli; from mailsec.app.output import Output\n"
        f"assert cli.run(['smime', 'verify', '--anchor', {str(files / 'ca.pem')!r}, {target!r}], Output()) == 0\n"
        "names = ('twisted', 'rich', 'sqlalchemy', 'alembic', 'pluggy', 'pydantic', 'structlog', 'asn1crypto', 'email.message', 'dns', 'OpenSSL')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
