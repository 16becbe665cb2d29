"""NSS's software token: parameters, trust that is checked only while logged in, names that all databases share."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mailsec.errors import ConfigurationError, KeyUnavailable, TokenError
from mailsec.model.trust import TrustFlags
from mailsec.testing.authority import Authority
from mailsec.tokens.module import Module
from mailsec.tokens.softoken import NssDatabase, find_softoken, nss_parameters
from mailsec.tokens.state import StateDirectory
from mailsec.x509.issue import make_key, public_key_of

PASSWORD = "one two"
LABEL = "NSS Certificate DB"


@pytest.fixture(scope="module")
def database(tmp_path_factory, need) -> Path:
    """A directory that certutil made."""
    certutil = need("certutil", "libnss3-tools")
    directory = tmp_path_factory.mktemp("nss")
    (directory / "password").write_text(PASSWORD + "\n")
    subprocess.run([certutil, "-N", "-d", f"sql:{directory}", "-f", str(directory / "password")], check=True, timeout=60)
    return directory


def certutil(database: Path, *arguments: str) -> str:
    command = ["certutil", *arguments, "-d", f"sql:{database}", "-f", str(database / "password")]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module")
def nss(database: Path, tmp_path_factory):
    parameters = nss_parameters([NssDatabase(str(database))])
    with Module("nss", find_softoken(), state=StateDirectory(tmp_path_factory.mktemp("state")), parameters=parameters) as module:
        module.login(LABEL, PASSWORD.encode())
        yield module


def test_certutil_sees_what_we_write_and_we_what_it_writes(nss: Module, database: Path):
    private, authority = make_key("rsa-2048"), Authority("NSS test CA")
    der = authority.certify(public_key_of(private), "alice@example.org")
    nss.import_certificate(LABEL, authority.certificate, "the CA")
    nss.set_trust(LABEL, authority.certificate, TrustFlags.parse("CT,C,P"))
    key = nss.import_key(LABEL, private, "alice")
    nss.import_certificate(LABEL, der, "alice")
    rows = {line[:60].strip(): line[60:].strip() for line in certutil(database, "-L").splitlines() if len(line) > 60}
    assert rows["the CA"] == "CT,C,P"
    assert rows["alice"] == "u,u,u"
    assert key.id.hex() in certutil(database, "-K")
    certutil(database, "-M", "-n", "the CA", "-t", ",Cw,")
    trust = {one.label: str(one.trust) for one in nss.certificates(LABEL)}
    assert trust == {"the CA": ",C,", "alice": ",,"}
    assert len(nss.sign(LABEL, key.id, "CKM_RSA_PKCS_PSS:sha256:32", os.urandom(32))) == 256


def test_keys_of_certutil_have_no_name_and_are_found_by_their_id(nss: Module, database: Path):
    (database / "noise").write_bytes(os.urandom(64))
    certutil(database, "-G", "-k", "ec", "-q", "nistp256", "-z", str(database / "noise"))
    key = next(one for one in nss.keys(LABEL) if not one.label)
    assert len(nss.sign(LABEL, key.id, "CKM_ECDSA", os.urandom(32))) == 64


@pytest.mark.parametrize("letters", ["p,p,p", "P,P,P", "c,c,c", "C,C,C", "CT,,", "T,,", ",,", "CT,C,C", ",p,", "P,C,"])
def test_letters_go_there_and_back_as_certutil_shows_them(nss: Module, database: Path, letters: str):
    der = Authority(f"trusted for {letters}").certificate
    nss.import_certificate(LABEL, der, f"ca {letters}")
    nss.set_trust(LABEL, der, TrustFlags.parse(letters))
    try:
        assert next(line for line in certutil(database, "-L").splitlines() if line.startswith(f"ca {letters} ")).split()[-1] == letters
        assert next(str(one.trust) for one in nss.certificates(LABEL) if one.der == der) == letters
    finally:
        nss.delete_certificate(LABEL, der)


def test_attack_trust_that_was_edited_is_not_believed(nss: Module, database: Path):
    """NSS itself believes it as long as nobody has logged in."""
    der = Authority("edited CA").certificate
    nss.import_certificate(LABEL, der, "edited")
    nss.set_trust(LABEL, der, TrustFlags.parse(",,"))
    with sqlite3.connect(database / "cert9.db") as edited:
        edited.execute("UPDATE nssPublic SET ace53635b = x'CE534352' WHERE ace53635b IS NOT NULL")
    found = next(one for one in nss.certificates(LABEL) if one.der == der)
    assert str(found.trust) == ",,"
    assert found.problem.startswith("its trust was not written by NSS")
    nss.delete_certificate(LABEL, der)


def test_attack_without_a_login_no_trust_is_believed(nss: Module, database: Path, tmp_path):
    der = Authority("trusted CA").certificate
    nss.import_certificate(LABEL, der, "trusted")
    nss.set_trust(LABEL, der, TrustFlags.parse("C,C,C"))
    script = (
        "import sys; from mailsec.tokens.module import Module; from mailsec.tokens.state import StateDirectory\n"
        "from mailsec.tokens.softoken import *\n"
        "parameters = nss_parameters([NssDatabase(sys.argv[1])])\n"
        "with Module('nss', find_softoken(), state=StateDirectory(sys.argv[2]), parameters=parameters) as module:\n"
        "    print({str(one.trust) for one in module.certificates('')})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(database), str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "{',,'}"
    assert next(str(one.trust) for one in nss.certificates(LABEL) if one.der == der) == "C,C,C"
    nss.delete_certificate(LABEL, der)


def test_a_password_that_was_changed_meanwhile_is_tried_once_and_then_asked_for(nss: Module, database: Path):
    used, key = nss.generate_key(LABEL, "p256", "used"), nss.generate_key(LABEL, "rsa-2048", "not used yet")
    assert nss.sign(LABEL, used.id, "CKM_ECDSA", bytes(32))
    (database / "new").write_text("three four\n")
    subprocess.run(
        ["certutil", "-W", "-d", f"sql:{database}", "-f", str(database / "password"), "-@", str(database / "new")],
        check=True,
        capture_output=True,
        timeout=60,
    )
    # A key in use is a copy in the session; others are read with the password.
    assert nss.sign(LABEL, used.id, "CKM_ECDSA", bytes(32))
    with pytest.raises(KeyUnavailable, match="refuses the PIN"):
        nss.sign(LABEL, key.id, "CKM_RSA_PKCS", b"x" * 51)
    nss.token(LABEL).login(b"three four", person=True)
    assert nss.sign(LABEL, key.id, "CKM_RSA_PKCS", b"x" * 51)
    nss.set_pin(LABEL, b"three four", PASSWORD.encode())


def test_crlutil_and_modutil_change_a_database_that_we_have_open_and_see_what_we_change(nss: Module, database: Path, need):
    need("crlutil", "libnss3-tools")
    need("modutil", "libnss3-tools")
    noise, script, new = database / "noise", database / "script", database / "new password"
    noise.write_bytes(os.urandom(64))
    script.write_text("update=20260101000000Z\naddcert 7 20260101000000Z\n")
    new.write_text("three four\n")
    issuer = ("-n", "lists", "-s", "CN=lists", "-x", "-t", "C,C,C", "-k", "ec", "-q", "nistp256", "-m", "5")
    certutil(database, "-S", *issuer, "--keyUsage", "certSigning,crlSigning", "-z", str(noise))

    def run(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def crlutil(*arguments: str) -> str:
        return run("crlutil", *arguments, "-d", f"sql:{database}", "-f", str(database / "password"))

    def change(old: Path, to: Path) -> None:
        run("modutil", "-force", "-dbdir", f"sql:{database}", "-changepw", LABEL, "-pwfile", str(old), "-newpwfile", str(to))

    assert not nss.revocation_lists(LABEL)
    crlutil("-G", "-n", "lists", "-c", str(script), "-Z", "SHA256")
    (der,) = nss.revocation_lists(LABEL)
    nss.delete_revocation_list(LABEL, der)
    assert "lists" not in crlutil("-L")
    nss.import_revocation_list(LABEL, der)
    assert "lists" in crlutil("-L")
    crlutil("-D", "-n", "lists")
    assert not nss.revocation_lists(LABEL)

    change(database / "password", new)
    with pytest.raises((TokenError, KeyUnavailable), match="refuses the PIN"):
        nss.generate_key(LABEL, "p256", "with the old password")
    nss.token(LABEL).login(b"three four", person=True)
    nss.set_pin(LABEL, b"three four", PASSWORD.encode())
    change(database / "password", new)
    change(new, database / "password")
    nss.token(LABEL).login(PASSWORD.encode(), person=True)


def test_several_databases_are_tokens_of_one_module(database: Path, tmp_path, need):
    other = tmp_path / "other"
    other.mkdir()
    (other / "password").write_text("other\n")
    subprocess.run(["certutil", "-N", "-d", f"sql:{other}", "-f", str(other / "password")], check=True, timeout=60)
    script = (
        "import sys; from mailsec.tokens.module import Module; from mailsec.tokens.state import StateDirectory\n"
        "from mailsec.tokens.softoken import *; from mailsec.errors import *\n"
        "databases = [NssDatabase(sys.argv[1], 'One'), NssDatabase(sys.argv[2], 'Two', read_only=True)]\n"
        "with Module('nss', find_softoken(), state=StateDirectory(sys.argv[3]), parameters=nss_parameters(databases)) as module:\n"
        "    print([one.label for one in module.tokens()])\n"
        "    try: module.login('One', b'wrong')\n"
        "    except TokenError as error: print(error)\n"
        "    module.login('Two', b'other')\n"
        "    try: module.generate_key('Two', 'p256', 'k')\n"
        "    except TokenError as error: print(error)\n"
        "    try: Module('again', find_softoken(), state=StateDirectory(sys.argv[3]), parameters='other')\n"
        "    except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(database), str(other), str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "['One', 'Two']"
    # All NSS databases have one serial: the mark of one is not that of the other.
    assert lines[1] == "token 'One' refuses the PIN (CKR_PIN_INCORRECT)"
    assert lines[2] == "token 'Two' is read-only"
    assert lines[3].endswith("is open already, with other parameters")


@pytest.mark.parametrize("name", ["a'b", 'a"b', "a\\b", "a]b", "a>b", "a\nb"])
def test_attack_a_name_cannot_end_the_parameter_it_stands_in(name: str):
    for database in (NssDatabase(name), NssDatabase("/d", name), NssDatabase("/d", prefix=name)):
        with pytest.raises(ConfigurationError):
            nss_parameters([database])


def test_a_directory_without_a_database_is_said_so(tmp_path):
    script = (
        "import sys; from mailsec.tokens.module import Module; from mailsec.tokens.state import StateDirectory\n"
        "from mailsec.tokens.softoken import *; from mailsec.errors import *\n"
        "parameters = nss_parameters([NssDatabase('/nowhere', read_only=True)])\n"
        "try: Module('nss', find_softoken(), state=StateDirectory(sys.argv[1]), parameters=parameters)\n"
        "except ConfigurationError as error: print(error.message, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
    assert "the NSS database cannot be opened" in done.stdout and "cert9.db" in done.stdout
