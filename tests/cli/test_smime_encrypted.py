"""`mailsec smime encrypt`, `decrypt`, `inspect`, and `mailsec cms parse`: exit codes, files of every kind, and what is never written."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mailsec.algorithms.profiles import PROFILES
from mailsec.keys.files import load_certificates, load_private_key
from mailsec.keys.software import SoftwareKey
from mailsec.model.address import Address
from mailsec.model.correspondents import Sighting
from mailsec.store.certdb import CertDb
from mailsec.store.learnt import Learnt
from mailsec.testing.authority import Authority

from .test_smime import AT, files, run  # noqa: F401 - fixture

KEY = ("--key", "alice.key", "--cert", "alice.pem")


def encrypted(folder: Path, target: Path, *options: str) -> str:
    code, _, err = run(folder, "smime", "encrypt", *(options or ("--to", "alice.pem")), "-o", str(target), "message.eml")
    assert code == 0, err
    return str(target)


def test_a_message_is_encrypted_and_opened_again(files: Path, tmp_path: Path) -> None:  # noqa: F811
    target = encrypted(files, tmp_path / "m.eml")
    assert b"Good day" not in Path(target).read_bytes()
    for keys in (
        KEY,
        ("--p12", "alice.p12", "--p12-password-file", "p12-password"),
        ("-d", "mailsec.db", "--passphrase-file", "passphrase"),
    ):
        clear = tmp_path / "clear.eml"
        code, out, err = run(files, "smime", "decrypt", "--json", *keys, "-o", str(clear), target)
        value = json.loads(out)
        assert code == 0 and value["decrypted"] is True and value["plaintext_b64"] is None and value["output"] == str(clear), err
        data = clear.read_bytes()
        assert data.startswith(b"From: Alice <alice@example.org>\r\n") and data.endswith(b"\r\n\r\nGood day.\r\n")
        assert clear.stat().st_mode & 0o077 == 0
    code, out, _ = run(files, "smime", "decrypt", "--json", *KEY, target)
    value = json.loads(out)
    plain = base64.b64decode(value["plaintext_b64"])
    assert plain.endswith(b"Good day.\r\n") and hashlib.sha256(plain).hexdigest() == value["plaintext_sha256"]


def test_an_address_is_looked_up_in_the_database(files: Path, tmp_path: Path) -> None:  # noqa: F811
    database = ("-d", "mailsec.db", "--passphrase-file", "passphrase")
    target = encrypted(files, tmp_path / "m.eml", "--to", "alice@example.org", *database)
    assert run(files, "smime", "decrypt", "--json", *KEY, target)[0] == 0
    code, _, err = run(files, "smime", "encrypt", "--to", "nobody@example.org", *database, "message.eml")
    assert code == 1 and "nobody@example.org" in err
    assert run(files, "smime", "encrypt", "--to", "alice@example.org", "message.eml")[0] == 2


def test_what_cannot_be_opened_is_told_and_nothing_is_written(files: Path, tmp_path: Path) -> None:  # noqa: F811
    target = encrypted(files, tmp_path / "m.eml")
    clear = tmp_path / "clear.eml"
    code, out, _ = run(files, "smime", "decrypt", "--json", "-o", str(clear), target)
    value = json.loads(out)
    assert code == 1 and value["decrypted"] is False and value["layers"][0]["opened"] is False and not clear.exists()
    assert run(files, "smime", "decrypt", "-o", str(clear), "message.eml")[0] == 1 and not clear.exists()
    assert run(files, "smime", "decrypt", "--key", "other.key", "--cert", "alice.pem", target)[0] == 3
    assert run(files, "smime", "decrypt", "--key", "alice.key", *KEY, target)[0] == 2


def test_inspect_and_parse_show_for_whom_it_is(files: Path, tmp_path: Path) -> None:  # noqa: F811
    target = encrypted(files, tmp_path / "m.eml")
    code, out, _ = run(files, "smime", "inspect", target)
    assert code == 0 and "enveloped-data" in out and "Test CA" in out
    _, out, _ = run(files, "smime", "inspect", "--json", target)
    assert json.loads(out)["layers"][0]["structure"]["recipients"][0]["kind"] == "key-agreement"
    code, out, _ = run(files, "cms", "parse", target)
    assert code == 0 and "type: EnvelopedData" in out
    assert run(files, "cms", "parse", "message.eml")[0] == 3


def test_signed_encrypted_and_sealed_with_one_command(files: Path, tmp_path: Path) -> None:  # noqa: F811
    options = ("--to", "alice.pem", *KEY, "--triple", "--header-protection", "baseline")
    target = tmp_path / "m.eml"
    code, out, err = run(files, "smime", "encrypt", "--json", *options, "-o", str(target), "message.eml")
    value = json.loads(out)
    assert code == 0 and value["wrap"] == "triple" and value["signer"]["addresses"] == ["alice@example.org"], err
    assert value["algorithm"] == "aes-256-cbc" and value["header_protection"] == "baseline"
    assert b"Subject: [...]" in target.read_bytes()
    code, out, err = run(files, "smime", "verify", "--json", "--anchor", "ca.pem", *KEY, str(target))
    value = json.loads(out)
    assert code == 0 and value["trusted"] and value["protected_headers"]["subject"], err
    assert [layer["type"] for layer in value["layers"]] == ["signed-data", "enveloped-data", "signed-data"]
    clear = tmp_path / "clear.eml"
    assert run(files, "smime", "decrypt", *KEY, "-o", str(clear), str(target))[0] == 0
    header, _, body = clear.read_bytes().partition(b"\r\n\r\n")
    assert b"Subject: [...]" not in header and b"Good day." in body
    code, out, _ = run(files, "smime", "verify", "--anchor", "ca.pem", *KEY, str(target))
    assert code == 0 and "header          its signer wrote: from, to, subject" in out


def test_what_does_not_go_together_is_a_usage_error(files: Path) -> None:  # noqa: F811
    code, _, err = run(files, "smime", "encrypt", "--to", "alice.pem", "--triple", "message.eml")
    assert code == 2 and "no signer is named" in err and "--signer" in err
    for command in (("sign", *KEY), ("encrypt", "--to", "alice.pem")):
        code, _, err = run(files, "smime", *command, "--profile", "defualt", "message.eml")
        assert code == 2 and 'there is no profile "defualt"' in err and "edi-energy" in err
        assert run(files, "smime", *command, "--header-protection", "all", "message.eml")[0] == 2
    # A signature hides nothing.
    assert run(files, "smime", "sign", *KEY, "--header-protection", "shy", "message.eml")[0] == 2


def test_signer_and_recipient_by_their_names_in_the_database(files: Path, tmp_path: Path) -> None:  # noqa: F811
    database = ("-d", "mailsec.db", "--passphrase-file", "passphrase")
    target = encrypted(files, tmp_path / "m.eml", "--to", "alice", "--signer", "from", "--header-protection", "sign", *database)
    code, out, _ = run(files, "smime", "verify", "--json", "--anchor", "ca.pem", *KEY, target)
    assert code == 0 and json.loads(out)["protected_headers"]["from"] == "Alice <alice@example.org>"
    code, _, err = run(files, "smime", "encrypt", "--to", "Nobody", *database, "message.eml")
    assert code == 1 and "Nobody" in err


def test_attack_a_certificate_that_waits_is_not_taken_by_its_nickname(files: Path, tmp_path: Path) -> None:  # noqa: F811
    copy = tmp_path / "mailsec.db"
    shutil.copy(files / "mailsec.db", copy)
    alice = (files / "alice.der").read_bytes()
    with CertDb.open(str(copy), password=b"a pass phrase") as database:
        Learnt(database).decide(hashlib.sha256(alice).hexdigest(), "reject")
    for to, why in (("alice", "it is rejected"), ("alice@example.org", "no certificate of")):
        options = ("--to", to, "-d", str(copy), "--passphrase-file", "passphrase", "-o", str(tmp_path / "m.eml"))
        code, _, err = run(files, "smime", "encrypt", *options, "message.eml")
        assert code == 1 and why in err and not (tmp_path / "m.eml").exists()


def test_of_a_pair_the_certificate_for_encryption_is_taken_and_none_that_has_ended(files: Path, tmp_path: Path) -> None:  # noqa: F811
    copy = tmp_path / "mailsec.db"
    shutil.copy(files / "mailsec.db", copy)
    authority, now = Authority(), datetime.now(UTC)
    reads = authority.issue("bob@example.org", usage="encrypt", at=now - timedelta(days=9)).certificate
    signs = authority.issue("bob@example.org", usage="sign", at=now - timedelta(days=2)).certificate
    ended = authority.issue("carol@example.org", at=now - timedelta(days=99), days=9).certificate
    with CertDb.open(str(copy), password=b"a pass phrase") as database:
        for number, der in enumerate((reads, signs, ended)):
            database.add(der, f"one-{number}", at=now)
    options = ("--json", "-d", str(copy), "--passphrase-file", "passphrase", "-o", str(tmp_path / "m.eml"), "message.eml")
    code, out, err = run(files, "smime", "encrypt", "--to", "bob@example.org", *options)
    assert code == 0 and json.loads(out)["recipients"][0]["fingerprint"] == hashlib.sha256(reads).hexdigest(), err
    code, out, _ = run(files, "smime", "encrypt", "--to", "carol@example.org", *options)
    assert code == 1 and "it has ended" in json.loads(out)["error"]["message"]


def test_a_long_text_is_compressed(files: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "long.eml").write_bytes(b"From: alice@example.org\n\n" + b"All work and no play makes Jack a dull boy.\n" * 200)
    target = tmp_path / "m.eml"
    options = ("--to", "alice.pem", "--compress", "-o", str(target), str(tmp_path / "long.eml"))
    assert run(files, "smime", "encrypt", *options)[0] == 0 and target.stat().st_size < 2000
    code, out, _ = run(files, "smime", "inspect", *KEY, str(target))
    assert code == 0 and "compressed-data" in out
    clear = tmp_path / "clear.eml"
    assert run(files, "smime", "decrypt", *KEY, "-o", str(clear), str(target))[0] == 0 and b"All work" in clear.read_bytes()


def test_what_a_recipient_is_known_to_read_decides_the_cipher(files: Path, tmp_path: Path) -> None:  # noqa: F811
    """Her capabilities, as she signed them, make it GCM; by her file, of which nothing is known, it is CBC."""
    copy = tmp_path / "mailsec.db"
    shutil.copy(files / "mailsec.db", copy)
    alice = (files / "alice.der").read_bytes()
    ca = load_certificates((files / "ca.pem").read_bytes())[0]
    key = SoftwareKey("alice", load_private_key((files / "alice.key").read_bytes(), None), certificate=alice)
    capabilities = PROFILES["default"].capabilities(key)
    with CertDb.open(str(copy), password=b"a pass phrase") as database:
        sighting = Sighting(Address.parse("alice@example.org"), alice, anchor=ca, capabilities=capabilities, signed_at=AT)
        Learnt(database).learn([sighting], at=AT)
    algorithms = []
    for to in ("alice@example.org", "alice.pem"):
        options = ("--json", "--to", to, "-d", str(copy), "--passphrase-file", "passphrase", "-o", str(tmp_path / "m.eml"))
        code, out, err = run(files, "smime", "encrypt", *options, "message.eml")
        assert code == 0, err
        algorithms.append(json.loads(out)["algorithm"])
    assert algorithms == ["aes-256-gcm", "aes-256-cbc"]
