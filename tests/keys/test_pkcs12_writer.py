"""PKCS#12 files that we write: read by us, by OpenSSL and by NSS, with all keys and names; and files of theirs."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime

import pytest

from mailsec.errors import PrivateKeyError, UsageError
from mailsec.keys.files import Pkcs12Key, load_pkcs12
from mailsec.keys.pkcs12_writer import write_pkcs12
from mailsec.model.address import Address
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

AT = datetime.now(UTC)
PASSPHRASE = "pässwörd €".encode()


@pytest.fixture(scope="module")
def people() -> tuple[list[Pkcs12Key], bytes]:
    """Three keys of different kinds with their certificates, and their authority."""
    ca_key = make_key("ec-p256")
    ca = IssuedBy(make_ca(common_name="CA", key=ca_key, at=AT, random=os.urandom), ca_key)
    keys = []
    for name, kind in (("alice", "rsa-2048"), ("Böb, München", "ec-p256"), ("carol", "rsa-2048")):
        key = make_key(kind)
        address = Address.parse(f"{name[0].lower()}@example.org")
        der = issue_mail(ca, addresses=[address], public_key=public_key_of(key), at=AT, random=os.urandom)
        keys.append(Pkcs12Key(name, key, der))
    return keys, ca.certificate


@pytest.fixture(scope="module", params=["modern", "legacy"])
def written(request, people) -> bytes:
    keys, ca = people
    return write_pkcs12(keys, [("CA", ca)], passphrase=PASSPHRASE, random=os.urandom, form=request.param)


def test_we_read_what_we_wrote(written, people):
    keys, ca = people
    contents = load_pkcs12(written, PASSPHRASE)
    assert {(key.name, key.certificate) for key in contents.keys} == {(key.name, key.certificate) for key in keys}
    assert {public_key_of(key.private_key) for key in contents.keys} == {public_key_of(key.private_key) for key in keys}
    assert contents.certificates == (("CA", ca),)
    with pytest.raises(PrivateKeyError):
        load_pkcs12(written, b"another")


def test_openssl_reads_all_keys_certificates_and_names(written, need, tmp_path):
    (tmp_path / "x.p12").write_bytes(written)
    (tmp_path / "password").write_bytes(PASSPHRASE + b"\n")
    command = [need("openssl"), "pkcs12", "-in", tmp_path / "x.p12", "-passin", f"file:{tmp_path}/password", "-nodes", "-legacy"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("BEGIN PRIVATE KEY") == 3 and done.stdout.count("BEGIN CERTIFICATE") == 4
    assert done.stdout.count("friendlyName: alice") == 2


def test_nss_takes_all_keys_and_names_and_gives_them_back(written, people, need, tmp_path):
    need("pk12util", "libnss3-tools")
    directory = tmp_path / "nss"
    directory.mkdir()
    (tmp_path / "x.p12").write_bytes(written)
    (tmp_path / "password").write_bytes(PASSPHRASE + b"\n")
    database = f"sql:{directory}"
    subprocess.run(["certutil", "-N", "--empty-password", "-d", database], check=True, capture_output=True)
    run = subprocess.run(
        ["pk12util", "-i", tmp_path / "x.p12", "-d", database, "-w", tmp_path / "password", "-K", ""], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    listed = subprocess.run(["certutil", "-L", "-d", database], capture_output=True, text=True, check=True).stdout
    assert all(f"{key.name:60.60}"[:40] in listed for key in people[0]) and listed.count("u,u,u") == 3
    # And back: alice, as NSS writes her.
    out = tmp_path / "back.p12"
    subprocess.run(
        ["pk12util", "-o", out, "-n", "alice", "-d", database, "-w", tmp_path / "password", "-K", ""], check=True, capture_output=True
    )
    back = load_pkcs12(out.read_bytes(), PASSPHRASE)
    alice = people[0][0]
    assert [(key.name, key.certificate) for key in back.keys] == [("alice", alice.certificate)]
    assert public_key_of(back.keys[0].private_key) == public_key_of(alice.private_key)


def test_a_key_without_certificate_and_a_certificate_without_key(people):
    keys, ca = people
    lone = Pkcs12Key("lone", keys[1].private_key, None)
    contents = load_pkcs12(write_pkcs12([lone], passphrase=b"x", random=os.urandom), b"x")
    assert [(key.name, key.certificate) for key in contents.keys] == [("lone", None)]
    assert load_pkcs12(write_pkcs12([], [("", ca)], passphrase=b"x", random=os.urandom), b"x").certificates == (("", ca),)


def test_many_keys_stay_within_what_may_be_derived(people):
    keys = [Pkcs12Key(f"key {number}", make_key("ec-p256")) for number in range(40)]
    written = write_pkcs12(keys, passphrase=b"x", random=os.urandom)
    assert len(load_pkcs12(written, b"x").keys) == 40


@pytest.mark.parametrize("passphrase", [b"", b"\xff"])
def test_a_pass_phrase_that_protects_nothing_or_is_no_text_is_refused(people, passphrase):
    with pytest.raises(UsageError):
        write_pkcs12(people[0], passphrase=passphrase, random=os.urandom)
