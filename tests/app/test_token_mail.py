"""`mailsec smime sign|encrypt|decrypt` with keys that never leave their token: SoftHSM2, with OpenSSL at the other end."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mailsec.app.commands.init import set_up_database
from mailsec.app.config.render import render
from tests.peers.softhsm import SoftHsm

PLAIN = b"From: alice@example.org\r\nTo: alice@example.org\r\nSubject: x\r\n\r\nhello from a token\r\n"
C = ("-c", "mailsec.toml")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration with one module of two tokens: alice's key and certificate on one, bob's certificate without its key on the other."""
    directory = tmp_path_factory.mktemp("token-mail")
    directory.chmod(0o700)
    hsm = SoftHsm(directory / "hsm")
    hsm.add("HSM 1", "12 34")
    hsm.add("other", "99 99")
    set_up_database(directory, "gw.example.org", ["example.org"])
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"], "state_directory": str(directory / "state")},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "passphrase": {"method": "file", "file": "passphrase"},
        "relay": {"next_hop": "smtp://[127.0.0.1]:2526"},
        "module": [{"name": "soft", "library": hsm.library}],
    }
    (directory / "mailsec.toml").write_text(render(values))
    (directory / "pin").write_text("12 34\n")
    (directory / "wrong").write_text("12\n")
    (directory / "plain.eml").write_bytes(PLAIN)
    (directory / "nobody.eml").write_bytes(PLAIN.replace(b"alice@", b"nobody@", 1))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**hsm.environment, "XDG_STATE_HOME": str(directory / "state-home")}.items():
            patch.setenv(name, value)
        yield directory, hsm


@pytest.fixture(scope="module")
def certified(place):
    """alice's certificate is issued here for the key on the token, and put there under another name than the key's."""
    import io

    from mailsec.app import cli
    from mailsec.app.output import Output

    directory, hsm = place
    hsm.tool(
        "--token-label", "HSM 1", "--login", "--pin", "12 34", "--keypairgen", "--key-type", "rsa:2048", "--id", "01", "--label", "mail rsa"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)

        def mailsec(*arguments: str) -> None:
            err = io.StringIO()
            assert cli.run(arguments, Output(io.StringIO(), err)) == 0, err.getvalue()

        token = ("--pin-file", "pin", "--library", hsm.library)
        mailsec("cert", "request", "--address", "alice@example.org", "--with", "HSM 1:mail rsa", *token, "-o", "alice.csr", *C)
        mailsec("cert", "issue", "--request", "alice.csr", "-o", "alice.pem", "--nickname", "in the database", *C)
        mailsec("cert", "import", "alice.pem", "--token", "HSM 1", "--nickname", "alice-2026", *token, *C)
        mailsec("cert", "export", "CA", "-o", "ca.pem", *C)
    return place


@pytest.fixture
def there(certified, monkeypatch, mailsec, folder):
    directory, _ = certified
    monkeypatch.chdir(directory)
    return mailsec


@pytest.mark.parametrize(
    "name", ["HSM 1:alice-2026", "HSM 1:mail rsa", "pkcs11:token=HSM%201;id=%01", "pkcs11:object=alice-2026", "alice-2026", "from", ""]
)
def test_a_message_is_signed_with_a_key_on_a_token_however_it_is_named(there, name: str):
    named = ("--signer", name) if name else ()
    code, _, err = there("smime", "sign", "plain.eml", *named, "--pin-file", "pin", "-o", "signed.eml", *C)
    assert code == 0, err
    if openssl := shutil.which("openssl"):
        done = subprocess.run(
            [openssl, "cms", "-verify", "-in", "signed.eml", "-CAfile", "ca.pem", "-purpose", "any"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 and b"hello from a token" in done.stdout, done.stderr


def test_the_pin_comes_from_the_configuration_as_that_of_the_gateway_does(there):
    before = Path("passphrase").read_text()
    try:
        Path("passphrase").write_text(f"internal:{before.removeprefix('internal:').strip()}\nHSM 1:12 34\n")
        assert there("smime", "sign", "plain.eml", "-o", "signed.eml", *C)[0] == 0
        assert there("smime", "encrypt", "plain.eml", "--to", "alice@example.org", "-o", "sealed.eml", *C)[0] == 0
        code, _, err = there("smime", "decrypt", "sealed.eml", "-o", "opened.eml", *C)
        assert code == 0 and b"hello from a token" in Path("opened.eml").read_bytes(), err
    finally:
        Path("passphrase").write_text(before)


def test_what_openssl_encrypted_to_it_is_opened(there):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is absent")
    command = [openssl, "cms", "-encrypt", "-aes-256-cbc", "-in", "plain.eml", "-out", "sealed.eml", "alice.pem"]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    code, _, err = there("smime", "decrypt", "sealed.eml", "--pin-file", "pin", "-o", "opened.eml", *C)
    assert code == 0 and b"hello from a token" in Path("opened.eml").read_bytes(), err
    code, _, err = there("smime", "decrypt", "sealed.eml", "-o", "opened.eml", *C)
    assert code == 1 and "token 'HSM 1'" in err and "--pin-file" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--signer", "HSM:alice-2026", "--pin-file", "pin"), 1, "'HSM 1'"),  # "HSM" is not "HSM 1"
        (("--signer", "HSM 1:absent", "--pin-file", "pin"), 1, "cert list"),
        (("--signer", "absent", "--pin-file", "pin"), 1, "cert list"),
        (("--signer", "HSM 1:alice-2026"), 2, "--pin-file"),
        (("--signer", "pkcs11:token=HSM%201;pin-value=1"), 2, "pin-value"),
    ],
)
def test_a_name_that_means_no_key_gets_a_sentence(there, arguments, code: int, words: str):
    done, _, err = there("smime", "sign", "plain.eml", *arguments, "-o", "none.eml", *C)
    assert done == code and words in err and "hint:" in err, err
    assert not Path("none.eml").exists()


def test_whose_key_is_nowhere_is_told_and_no_pin_is_tried(there):
    code, _, err = there("smime", "sign", "nobody.eml", "--pin-file", "wrong", "-o", "none.eml", *C)
    assert code == 1 and "no key for nobody@example.org" in err
    rows = json.loads(there("token", "list", "--json", *C)[1])["tokens"]
    assert not any(row["marked"] for row in rows)
