"""Users: SCRAM-SHA-256 verifiers, SASLprep, whom they may send as, and what a guesser learns (nothing)."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import Refused, UsageError
from mailsec.store import scram
from mailsec.store.scram import make_verifier, prepare


def test_the_verifier_is_that_of_the_example_in_rfc_7677():
    # RFC 7677 §3: user "user", password "pencil"
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = make_verifier(b"pencil", salt, 4096)
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}".encode()
    signature = hmac.digest(verifier.stored_key, message, "sha256")
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == verifier.stored_key
    assert base64.b64encode(hmac.digest(verifier.server_key, message, "sha256")) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert verifier.fits(b"pencil") and not verifier.fits(b"Pencil")


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013 §3, the first five examples
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\u0007", "\u0007"),  # prohibited: stays
        ("\u0627\u0031", "\u0627\u0031"),  # RFC 3454 §6: fails the bidi check, stays
        ("a\u00a0b", "a b"),
        ("gr\u0075\u0308n", "grün"),
        ("\U0001f511", "\U0001f511"),  # unknown to Unicode 3.2: stays
    ],
)
def test_passwords_are_prepared_as_rfc_4013_says(text, prepared):
    assert prepare(text) == prepared


@given(st.text(max_size=40))
def test_preparing_twice_changes_nothing_more(text):
    assert prepare(prepare(text)) == prepare(text)


@given(st.binary(max_size=60))
def test_any_octets_are_a_password_or_not(octets):
    assert make_verifier(b"x", b"salt", 1).fits(octets) == (octets == b"x")


def test_a_password_with_a_nul_behind_it_is_another_one():
    assert not make_verifier(b"x", b"salt", 1).fits(b"x\0")
    with pytest.raises(UsageError, match="NUL"):
        make_verifier(b"x\0", b"salt", 1)


def test_a_user_logs_in_without_case_and_with_any_spelling_of_the_password(db, at):
    db.add_user("Alice@Example.org", "grün".encode(), at=at, iterations=4096)
    for login in ("Alice@Example.org", "alice@example.org"):
        assert db.check_password(login, "gru\u0308n".encode()).addresses == ("alice@example.org",)
    assert db.check_password("alice@example.org", b"") is None
    assert db.check_password("alice@example.org", "grün".encode("latin-1")) is None


def test_no_such_user_a_disabled_one_and_a_wrong_password_cost_the_same(db, at, monkeypatch):
    db.add_user("alice@example.org", b"secret", at=at)
    db.add_user("bob@example.org", b"secret", at=at)
    db.set_disabled("bob@example.org", True)
    spent: list[int] = []
    real = hashlib.pbkdf2_hmac
    monkeypatch.setattr(scram.hashlib, "pbkdf2_hmac", lambda name, *rest: spent.append(rest[-1]) or real(name, *rest))
    for login in ("alice@example.org", "bob@example.org", "nobody@example.org"):
        assert db.check_password(login, b"wrong") is None
    assert db.check_password("bob@example.org", b"secret") is None
    assert spent == [scram.ITERATIONS] * 4


def test_a_login_that_does_not_exist_always_shows_the_same_salt(db, path):
    from mailsec.store.certdb import CertDb

    one, two = db.verifier("nobody@example.org"), db.verifier("nobody@example.org")
    assert one.salt == two.salt != db.verifier("somebody@example.org").salt
    assert not one.fits(b"") and len(one.salt) == 16
    with CertDb.open(path, data_key=db.data_key) as other:
        assert other.verifier("nobody@example.org").salt == one.salt


@pytest.mark.parametrize("login", ["", " x", "a\nb", "a\x00b", "x" * 321, "\u202ea"])
def test_an_odd_login_is_refused(db, login):
    with pytest.raises(UsageError):
        db.add_user(login, b"secret", ["a@example.org"])
    assert db.check_password(login, b"secret") is None


@pytest.mark.parametrize("password", [b"", b"a\x00b", b"x" * 1025])
def test_an_odd_password_is_refused(db, password):
    with pytest.raises(UsageError):
        db.add_user("alice@example.org", password)
    assert db.users() == []


def test_a_login_that_is_no_address_needs_addresses(db, at):
    with pytest.raises(UsageError, match="addresses"):
        db.add_user("alice", b"secret")
    with pytest.raises(UsageError):
        db.add_user("alice", b"secret", ["nonsense"])
    db.add_user("alice", b"secret", ["alice@example.org", "@Sales.example.org"], iterations=4096)
    assert db.users()[0].addresses == ("alice@example.org", "@sales.example.org")
    with pytest.raises(UsageError, match="already"):
        db.add_user("ALICE", b"secret", ["alice@example.org"], iterations=4096)


def test_users_are_changed_and_removed(db, at):
    db.add_user("alice@example.org", b"secret", at=at, iterations=4096)
    db.set_password("alice@example.org", b"other", iterations=4096)
    db.set_addresses("alice@example.org", ["*"])
    assert db.check_password("alice@example.org", b"secret") is None
    assert db.check_password("alice@example.org", b"other").addresses == ("*",)
    db.remove_user("alice@example.org")
    assert db.users() == [] and db.check() == ()
    for act in (lambda: db.remove_user("alice@example.org"), lambda: db.set_password("x@example.org", b"y", iterations=1)):
        with pytest.raises(Refused):
            act()


def test_the_password_stands_nowhere_in_the_file(db, path, at, tmp_path):
    db.add_user("alice@example.org", b"correct horse battery", at=at, iterations=4096)
    for file in tmp_path.iterdir():
        assert b"correct horse" not in file.read_bytes()
    assert "correct" not in repr(db.users()) + repr(db.verifier("alice@example.org"))
