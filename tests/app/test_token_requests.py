"""Requests and certificates for keys that never leave their token: SoftHSM2, with OpenSC and OpenSSL beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mailsec.x509.certificate import load_certificate
from tests.peers.softhsm import SoftHsm

ALICE = ("cert", "request", "--address", "alice@example.org")


@pytest.fixture(scope="module")
def hsm(tmp_path_factory):
    made = SoftHsm(tmp_path_factory.mktemp("requests"))
    made.add("HSM 1", "12 34")
    made.add("other", "99 99")
    there = ("--token-label", "HSM 1", "--login", "--pin", "12 34", "--keypairgen")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        for number, (label, kind) in enumerate([("mail rsa", "rsa:2048"), ("mail ec", "EC:secp384r1"), ("twin", "EC:prime256v1")], 1):
            made.tool(*there, "--key-type", kind, "--id", f"0{number}", "--label", label)
        made.tool(*there, "--key-type", "EC:prime256v1", "--id", "04", "--label", "twin")
        yield made


@pytest.fixture
def request_with(mailsec, hsm: SoftHsm, folder: Path, monkeypatch):
    """request_with(KEY, …): `mailsec cert request` with the library named."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state-home"))
    (folder / "pin").write_text("12 34\n")
    (folder / "wrong").write_text("12\n")
    return lambda key, *arguments, pin="pin": mailsec(*ALICE, "--with", key, "--library", hsm.library, "--pin-file", pin, *arguments)


@pytest.mark.parametrize(
    "name", ["HSM 1:mail rsa", "HSM 1:mail ec", "pkcs11:token=HSM%201;id=%02", "pkcs11:object=mail%20ec;token=HSM%201"]
)
def test_a_key_on_a_token_gets_a_certificate_from_the_authority(mailsec, request_with, database, name):
    code, out, err = request_with(name, "-o", "alice.csr", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["token"] == "HSM 1"
    if openssl := shutil.which("openssl"):
        done = subprocess.run([openssl, "req", "-in", "alice.csr", "-verify", "-noout"], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert mailsec("cert", "issue", "-d", database, "--new-ca", "Outside", "--for", "example.org", "--key", "ec-p256")[0] == 0
    code, out, err = mailsec("cert", "issue", "-d", database, "--request", "alice.csr", "-o", "alice.pem", "--json")
    assert code == 0, err
    entry = json.loads(out)["certificates"][0]
    assert entry["addresses"] == ["alice@example.org"] and not entry["has_key"]
    assert mailsec("cert", "export", entry["nickname"], "-d", database, "--der", "-o", "alice.der")[0] == 0
    assert hashlib.sha256(load_certificate(Path("alice.der").read_bytes()).spki).hexdigest() == told["key_id"]


def test_modules_of_the_database_are_looked_at_and_nothing_is_kept_there(mailsec, hsm, request_with, database):
    code, _, err = mailsec(*ALICE, "--with", "HSM 1:mail ec", "--pin-file", "pin", "-d", database)
    assert code == 2 and "module add" in err
    assert mailsec("module", "add", "soft", hsm.library, "-d", database)[0] == 0
    code, out, err = mailsec(*ALICE, "--with", "HSM 1:mail ec", "--pin-file", "pin", "-d", database)
    assert code == 0 and out.startswith("-----BEGIN CERTIFICATE REQUEST"), err
    assert json.loads(mailsec("key", "list", "-d", database, "--json")[1])["keys"] == []


@pytest.mark.parametrize(
    ("name", "pin", "code", "said"),
    [
        ("HSM:mail rsa", "pin", 1, "there is no token for 'HSM:mail rsa'"),  # "HSM" is not "HSM 1"
        ("HSM 1:absent", "pin", 1, "'mail rsa'"),
        ("HSM 1:twin", "pin", 2, "id=%03 or pkcs11:token=HSM%201;id=%04"),
        ("pkcs11:object=twin", "wrong", 2, "2 tokens are meant"),  # and no PIN was tried: the login of the other tests works
        ("pkcs11:token=HSM%201;pin-value=1234", "pin", 2, "pin-value"),
        ("HSM 1:", "pin", 2, "token:nickname"),
        ("HSM 1:mail rsa", "absent", 3, "absent"),
    ],
)
def test_a_name_that_means_none_or_several_gets_a_sentence(request_with, name, pin, code, said):
    done, out, err = request_with(name, pin=pin)
    assert (done, out) == (code, "") and said in err, err


def test_options_that_do_not_go_together(mailsec, request_with, hsm, database):
    code, _, err = mailsec(*ALICE, "--pin-file", "pin", "-d", database)
    assert code == 2 and "for a key on a token" in err
    code, _, err = request_with("HSM 1:mail rsa", "--key", "ec-p256")
    assert code == 2 and "exclude each other" in err


def test_a_public_key_beside_another_private_one_makes_no_request(request_with, hsm, folder):
    """Whoever can write public objects would have a key certified that is theirs."""
    there = ("--token-label", "HSM 1", "--login", "--pin", "12 34")
    hsm.tool(*there, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "0a", "--label", "foisted")
    hsm.tool(*there, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "0b", "--label", "theirs")
    hsm.tool(*there, "--delete-object", "--type", "pubkey", "--id", "0a")
    code, _, err = request_with("HSM 1:foisted")
    assert code == 1 and "HSM 1:foisted" in err, err  # what it cannot show the public key of, nobody can certify
    hsm.tool(*there, "--read-object", "--type", "pubkey", "--id", "0b", "--output-file", "theirs.der")
    hsm.tool(*there, "--write-object", "theirs.der", "--type", "pubkey", "--id", "0a", "--label", "foisted")
    code, out, err = request_with("HSM 1:foisted")
    assert code != 0 and not out and "does not verify" in err, (code, err)
