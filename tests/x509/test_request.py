"""Requests (PKCS#10): what we ask for, what we read, and that nobody asks for somebody else's key."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import InputError, PrivateKeyError, UsageError
from mailsec.interfaces import run_now
from mailsec.keys.files import pem
from mailsec.keys.request import make_request as request_with
from mailsec.keys.software import SoftwareKey
from mailsec.model.address import Address
from mailsec.x509.private_keys import make_key, public_key_of
from mailsec.x509.request import read_request

ALICE = Address.parse("alice@example.org")


def make_request(*, key: bytes, **wanted) -> bytes:
    return run_now(request_with(SoftwareKey("key", key), public_key_of(key), **wanted))


KEY = make_key("ec-p256")
REQUEST = make_request(addresses=[ALICE], key=KEY)


@pytest.mark.parametrize("kind", ["rsa-2048", "ec-p256", "ec-p384", "ed25519", "ml-dsa-44", "ml-dsa-65"])
def test_a_request_says_whom_it_is_for_and_is_signed_with_its_own_key(kind, need, tmp_path):
    key = make_key(kind)
    addresses = (ALICE, Address.parse("jörg@bücher.example"))
    der = make_request(addresses=addresses, key=key, common_name="Alice Example")
    read = read_request(der)
    assert read.public_key == public_key_of(key) and read.common_name == "Alice Example"
    assert {address.key for address in read.addresses} == {address.key for address in addresses}
    if kind.startswith("ml-"):
        return
    (tmp_path / "request").write_bytes(pem(der, "CERTIFICATE REQUEST"))
    command = [need("openssl"), "req", "-in", tmp_path / "request", "-verify", "-noout", "-text"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "email:alice@example.org" in done.stdout and "E-mail Protection" in done.stdout


def test_a_request_of_openssl_is_read(need, tmp_path):
    command = [need("openssl"), "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-outform", "DER", "-out"]
    command += [tmp_path / "request", "-subj", "/CN=Bob", "-addext", "subjectAltName=email:bob@example.org,DNS:x.example"]
    subprocess.run(command, check=True, capture_output=True)
    read = read_request((tmp_path / "request").read_bytes())
    assert [str(address) for address in read.addresses] == ["bob@example.org"] and read.common_name == "Bob"


def test_attack_a_request_about_somebody_elses_key_is_refused():
    forged = REQUEST.replace(public_key_of(KEY), public_key_of(make_key("ec-p256")))
    assert forged != REQUEST
    with pytest.raises(InputError, match="not signed with the key"):
        read_request(forged)


@given(st.integers(0, len(REQUEST) - 1), st.integers(1, 255))
def test_octets_changed_anywhere_end_in_one_of_our_errors(place, change):
    der = bytearray(REQUEST)
    der[place] ^= change
    with pytest.raises(InputError):
        read_request(bytes(der))


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", b"x" * 100, b"\x30" * 5000, b"\x30\x84\xff\xff\xff\xff"])
def test_what_is_no_request_is_said_so(octets):
    with pytest.raises(InputError):
        read_request(octets)


def test_a_request_of_another_version_is_said_so():
    place = REQUEST.index(b"\x02\x01\x00")
    with pytest.raises(InputError):
        read_request(REQUEST[:place] + b"\x02\x01\x05" + REQUEST[place + 3 :])


def test_what_cannot_be_asked_for():
    with pytest.raises(UsageError):
        make_request(addresses=[], key=KEY)
    with pytest.raises(UsageError):
        make_request(addresses=[ALICE], key=make_key("ed25519"), usage="encrypt")
    with pytest.raises(PrivateKeyError):
        make_request(addresses=[ALICE], key=make_key("x25519"))
