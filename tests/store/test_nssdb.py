"""An NSS database while NSS's own tools use it too: what they write is seen at once, and what we write by them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_der_x509_certificate

from mailsec.errors import KeyUnavailable, Tampered, TokenError, UsageError, WrongPassphrase
from mailsec.keys.files import load_pkcs12
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.nssdb import NssDb
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of
from tests.peers.nss import NssDirectory

ANY = ("*",)


@pytest.fixture(scope="module")
def directory(tmp_path_factory, need) -> NssDirectory:
    need("certutil", "libnss3-tools")
    return NssDirectory(tmp_path_factory.mktemp("nss"))


@pytest.fixture(scope="module")
def nss(directory: NssDirectory, tmp_path_factory):
    """mailsec has it open while all of these tests run."""
    with directory.open(tmp_path_factory.mktemp("state")) as database:
        yield database


def names(database: NssDb) -> set[str]:
    return {entry.nickname for entry in database.entries()}


def test_certutil_shows_what_we_add_with_its_key_and_trust(nss, directory, issue, ca, at):
    alice = issue("alice@example.org")
    nss.add(alice.der, "alice", private_key=alice.key, at=at)
    nss.add(ca.der, "the CA", trust=TrustFlags.parse("CT,C,"), domains=ANY, at=at)
    assert directory.trust()["alice"] == "u,u,u" and directory.trust()["the CA"] == "CT,C,"
    key_id = nss.find_key("alice").key_id
    assert key_id.hex() in directory.run("certutil", "-K")
    nss.rename("alice", "alice 2026")
    nss.set_trust("the CA", TrustFlags.parse(",C,"), domains=ANY)
    assert {"alice 2026": "u,u,u", "the CA": ",C,"}.items() <= directory.trust().items()
    nss.delete(nss.find("alice 2026")[0])
    assert "alice 2026" not in directory.trust() and key_id.hex() not in directory.run("certutil", "-K", check=False)


def test_what_certutil_makes_is_there_at_once(nss, directory):
    directory.run(
        *("certutil", "-S", "-n", "made", "-s", "E=made@example.org,CN=Made", "-x", "-t", "C,,", "-k", "ec", "-q", "nistp256"),
        *("-z", str(directory.noise), "-m", "7", "-v", "120", "-7", "made@example.org"),
    )
    (made,) = nss.find("made")
    assert made.has_key and made.verified and str(made.trust) == "C,," and made.addresses == ("made@example.org",)
    directory.run("certutil", "-M", "-n", "made", "-t", ",P,")
    assert nss.find("made")[0].trust.email_peer
    directory.run("certutil", "--rename", "-n", "made", "--new-n", "renamed")
    assert nss.find("renamed") and not nss.find("made")
    # A key that certutil made has no label: it is found by its certificate's public key, and by CKA_ID.
    key = nss.find_key("renamed")
    loaded = serialization.load_der_private_key(nss.private_key(nss.find("renamed")[0]) or b"", None)
    assert loaded.public_key() == load_der_x509_certificate(made.der).public_key()
    directory.run("certutil", "-F", "-n", "renamed")
    assert not nss.find("renamed")
    with pytest.raises(KeyUnavailable):
        nss.find_key(key.key_id.hex())


def test_attack_two_certificates_with_one_issuer_and_serial_number(nss, ca, at):
    own, numbers = [Address.parse("twin@example.org")], lambda count: b"\5" * count
    first, second = (
        issue_mail(IssuedBy(ca.der, ca.key), addresses=own, public_key=public_key_of(make_key("ec-p256")), at=at, random=numbers)
        for _ in range(2)
    )
    nss.add(first, "first", at=at)
    with pytest.raises(UsageError, match='"first" has this issuer and serial number'):
        nss.add(second, "second", at=at)
    assert nss.find("first")[0].der == first and not nss.find("second")


@pytest.mark.parametrize("kind", ["rsa-2048", "ec-p384"])
def test_pk12util_writes_the_keys_that_we_bring_and_make(nss, directory, ca, at, tmp_path, kind):
    """Made on the token, certified outside, and taken to another program."""
    made = nss.key_octets(nss.generate_key(kind, at=at))
    own = [Address.parse("own@example.org")]
    der = issue_mail(IssuedBy(ca.der, ca.key), addresses=own, public_key=public_key_of(made), at=at, random=os.urandom)
    assert nss.add(der, f"own {kind}", at=at).has_key
    directory.pk12util("-o", str(tmp_path / "own.p12"), "-n", f"own {kind}", "-W", "secret")
    read = load_pkcs12((tmp_path / "own.p12").read_bytes(), b"secret")
    assert [key.certificate for key in read.keys] == [der]
    assert public_key_of(read.keys[0].private_key) == public_key_of(made)


def test_keys_that_pk12util_brings_are_ours_too(nss, directory, at, tmp_path):
    key = make_key("rsa-2048")
    der = make_ca(common_name="From outside", key=key, at=at, random=os.urandom)
    packed = pkcs12.serialize_key_and_certificates(
        b"from outside",
        serialization.load_der_private_key(key, None),
        load_der_x509_certificate(der),
        None,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "in.p12").write_bytes(packed)
    directory.pk12util("-i", str(tmp_path / "in.p12"), "-W", "secret")
    (entry,) = nss.find("from outside")
    assert entry.has_key and public_key_of(nss.private_key(entry)) == public_key_of(key)


def test_a_wrong_password_that_somebody_types_takes_nothing_out_of_service(nss, at):
    token = nss._host.token("")
    with pytest.raises(TokenError, match="refuses the PIN"):
        token.login(b"a slip of the fingers", person=True)
    assert nss.unlocked and nss.key_octets(nss.generate_key("ec-p256", at=at))


def test_modutil_lists_the_database_that_we_have_open(nss, directory):
    assert "NSS Internal PKCS #11 Module" in directory.modutil("-list")
    assert nss.unlocked


def test_attack_trust_that_was_edited_in_the_file_decides_nothing(nss, directory, ca, at):
    der = make_ca(common_name="Edited", key=make_key("ec-p256"), at=at, random=os.urandom)
    nss.add(der, "edited", trust=TrustFlags.parse(",p,"), at=at)
    assert der in nss.distrusted("email")
    connection = sqlite3.connect(directory.path / "cert9.db")
    with connection:
        # CKA_TRUST_EMAIL_PROTECTION of its row: a trusted delegator.
        connection.execute("UPDATE nssPublic SET ace53635b = x'CE534352' WHERE ace53635b = x'CE53435A'")
    connection.close()
    (entry,) = nss.find("edited")
    assert not entry.verified and str(entry.trust) == ",,"
    assert not [anchor for anchor in nss.anchors("email") if anchor.der == der]
    # It may have been a distrust: nobody is judged before somebody has looked.
    with pytest.raises(Tampered, match="edited"):
        nss.distrusted("email")
    assert any("edited" in problem for problem in nss.check())
    nss.set_trust("edited", TrustFlags.parse(",p,"))
    assert der in nss.distrusted("email") and nss.check() == ()


@pytest.mark.parametrize(
    "wanted", [{"assigned": ("@example.org",)}, {"issuer": b"x"}, {"trust": TrustFlags.parse(",C,"), "domains": ("example.org",)}]
)
def test_what_nss_has_no_place_for_is_refused_and_never_dropped(nss, issue, at, wanted):
    before = names(nss)
    with pytest.raises(UsageError, match="keeps no"):
        nss.add(issue("carol@example.org", name="Carol").der, "carol", at=at, **wanted)
    assert names(nss) == before


def test_a_database_opened_for_looking_is_not_changed(issue, at, tmp_path, need):
    script_directory = NssDirectory(tmp_path / "nss")
    before = (script_directory.path / "cert9.db").read_bytes()
    code = (
        "import sys; from pathlib import Path; from tests.peers.nss import NssDirectory, PASSWORD\n"
        "from tests.peers import nss; from mailsec.errors import TokenError; from mailsec.x509.issue import *\n"
        "import datetime, os\n"
        "at = datetime.datetime.now(datetime.UTC)\n"
        "directory = NssDirectory.__new__(NssDirectory); directory.path = Path(sys.argv[1])\n"
        "with directory.open(Path(sys.argv[2]), read_only=True) as database:\n"
        "    try: database.add(make_ca(common_name='x', key=make_key('ec-p256'), at=at, random=os.urandom), 'x', at=at)\n"
        "    except TokenError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(script_directory.path), str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert "read-only" in done.stdout
    assert (script_directory.path / "cert9.db").read_bytes() == before


def test_after_another_process_changed_the_password_nothing_is_written_with_the_old_one(nss, directory, issue, at):
    """Last in this file: everybody else uses the old one."""
    key = make_key("rsa-2048")
    der = make_ca(common_name="Changed", key=key, at=at, random=os.urandom)
    entry = nss.add(der, "changed", private_key=key, at=at)
    (directory.path / "new").write_text("three four\n")
    directory.run("certutil", "-W", "-@", str(directory.path / "new"))
    directory.password_file.write_text("three four\n")
    bob = issue("bob@example.org", name="Bob", key="rsa")
    # softoken itself would write the key so that nobody could read it.
    with pytest.raises(TokenError, match="refuses the PIN"):
        nss.add(bob.der, "bob", private_key=bob.key, at=at)
    with pytest.raises(WrongPassphrase, match="refuses the PIN"):
        nss.private_key(entry)
    assert "bob" not in directory.trust()
    nss._host.token("").login(b"three four", person=True)
    assert public_key_of(nss.private_key(entry)) == public_key_of(key)
    assert nss.add(bob.der, "bob", private_key=bob.key, at=at).has_key
    directory.pk12util("-o", str(directory.path / "bob.p12"), "-n", "bob", "-W", "x")
