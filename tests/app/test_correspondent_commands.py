"""`cert find`, `cert learnt` and the overviews of `cert list`: whom mail is encrypted for, and what a person decides about it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from mailsec.app.config.render import render
from mailsec.model.address import Address
from mailsec.model.correspondents import Sighting
from mailsec.model.trust import IssuedCertificate, TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.learnt import Learnt
from mailsec.x509.certificate import load_certificate
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of
from mailsec.x509.issue_crl import issue_crl

NOW = datetime.now(UTC)
BOB = Address.parse("bob@example.net")


def answer(result: tuple[int, str, str], code: int = 0) -> dict:
    got, out, err = result
    assert got == code, err + out
    return json.loads(out)


@pytest.fixture
def authority(database) -> IssuedBy:
    key = make_key("ec-p256")
    ca = IssuedBy(make_ca(common_name="CA", key=key, at=NOW - timedelta(days=30), random=os.urandom), key)
    with CertDb.open(database) as opened:
        opened.add(ca.certificate, "CA", trust=TrustFlags.parse(",C,"), domains=("*",), at=NOW)
    return ca


@pytest.fixture
def see(database, authority):
    """see(): Bob's signed mail brings another certificate."""

    def seen(days: int = 300) -> str:
        public = public_key_of(make_key("ec-p256"))
        at = NOW - timedelta(days=20)
        der = issue_mail(authority, addresses=[BOB], public_key=public, at=at, random=os.urandom, days=days)
        with CertDb.open(database) as opened:
            sighting = Sighting(BOB, der, anchor=authority.certificate)
            (lesson,) = Learnt(opened).learn([sighting], anchors=(authority.certificate,), at=NOW)
        return lesson.fingerprint

    return seen


def test_what_mail_taught_is_used_and_another_key_waits_for_a_person(mailsec, database, see):
    first = see()
    assert (
        answer(mailsec("cert", "find", "Bob@example.net", "-d", database, "--json"))["certificates"][0]["certificate"]["fingerprint"]
        == first
    )
    second = see()
    code, out, _ = mailsec("cert", "learnt", "-d", database)
    assert code == 0 and out.index("PENDING: another key") < out.index("in use") and second[:16] in out
    told = answer(mailsec("cert", "learnt", "--pending", "-d", database, "--json"))["certificates"]
    assert [one["fingerprint"] for one in told] == [second] and told[0]["instead_of"] == [first]
    told = answer(mailsec("cert", "find", "bob@example.net", "--explain", "-d", database, "--json"))
    assert [one["certificate"]["fingerprint"] for one in told["certificates"]] == [first]
    assert told["others"][0]["certificate"]["fingerprint"] == second and told["others"][0]["reason"]["message"]
    code, out, _ = mailsec("cert", "learnt", "accept", "bob@example.net", "-d", database)
    assert code == 0 and "is used from now on" in out
    assert "Nothing waits" in mailsec("cert", "learnt", "--pending", "-d", database)[1]


def test_a_pin_keeps_all_others_out_and_a_block_ends_it(mailsec, database, see):
    first = see()
    assert mailsec("cert", "learnt", "pin", first[:8], "-d", database)[0] == 0
    assert "pinned" in mailsec("cert", "list", "-d", database)[1]
    see()
    told = answer(mailsec("cert", "find", "bob@example.net", "-d", database, "--json"))
    assert [one["certificate"]["fingerprint"] for one in told["certificates"]] == [first]
    assert mailsec("cert", "learnt", "block", first, "-d", database)[0] == 0
    told = answer(mailsec("cert", "find", "bob@example.net", "-d", database, "--json"), 1)
    assert not told["found"] and told["reason"]["message"]
    with CertDb.open(database) as opened:
        assert len(opened.distrusted()) == 1


def test_nobody_known_is_exit_1_and_says_so(mailsec, database, authority):
    code, out, _ = mailsec("cert", "find", "nobody@example.net", "-d", database)
    assert code == 1 and "no certificate to encrypt to nobody@example.net" in out
    assert mailsec("cert", "find", "no address", "-d", database)[0] == 3


@pytest.mark.parametrize("arguments", [("--local",), ()])
def test_with_a_configuration_the_gateway_itself_is_asked(mailsec, folder, database, see, arguments):
    """Without `--local` in a process of its own: a reactor runs once."""
    fingerprint = see()
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"]},
        "database": {"location": database},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "relay": {"next_hop": "smtp://[127.0.0.1]:1"},
        "revocation": {"mode": "off"},
    }
    (folder / "mailsec.toml").write_text(render(values))
    command = ("cert", "find", "bob@example.net", "-c", "mailsec.toml", "--json", *arguments)
    if arguments:
        told = answer(mailsec(*command))
    else:
        import subprocess
        import sys

        done = subprocess.run([sys.executable, "-m", "mailsec", *command], capture_output=True, text=True, timeout=60)
        told = answer((done.returncode, done.stdout, done.stderr))
    assert [one["certificate"]["fingerprint"] for one in told["certificates"]] == [fingerprint]


def test_whoever_a_list_of_the_database_calls_revoked_is_not_encrypted_for(mailsec, database, folder, authority, see):
    fingerprint = see()
    find = ("cert", "find", "bob@example.net", "-d", database, "--json")
    assert answer(mailsec(*find))["found"]
    with CertDb.open(database) as opened:
        der = next(one.der for one in opened.entries() if "bob@example.net" in one.addresses)
    certificate = load_certificate(der)
    revoked = IssuedCertificate(authority.certificate, certificate.serial, der, certificate.not_after, NOW, "keyCompromise")
    (folder / "ca.crl").write_bytes(issue_crl(authority, [revoked], number=1, at=NOW - timedelta(hours=1)))
    assert mailsec("crl", "import", "ca.crl", "-d", database)[0] == 0
    told = answer(mailsec(*find), 1)
    assert [(one["certificate"]["fingerprint"], one["reason"]["code"]) for one in told["others"]] == [(fingerprint, "recipient-revoked")]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("believe", "bob@example.net"), 2, "accept, reject, pin or block"),
        (("accept",), 2, "which certificate"),
        (("accept", "abc"), 2, "fingerprint"),
        (("accept", "00000000"), 1, "no certificate"),
        (("accept", "nobody@example.net"), 1, "no certificate waits"),
        (("accept", "a b@c"), 2, "local part"),
        (("accept", "00000000", "--pending"), 2, "--pending"),
    ],
)
def test_a_wrong_decision_is_one_sentence_with_a_hint(mailsec, database, see, arguments, code, words):
    see()
    got, out, err = mailsec("cert", "learnt", *arguments, "-d", database)
    assert got == code and words in err and not out


def test_what_ends_soon_is_listed_first_to_end_first(mailsec, database, see, authority):
    see(days=25)  # ends in five days
    see(days=300)
    told = answer(mailsec("cert", "list", "--expiring", "30d", "-d", database, "--json"))["certificates"]
    assert len(told) == 1 and told[0]["addresses"] == ["bob@example.net"]
    ends = [one["not_after"] for one in answer(mailsec("cert", "list", "--expiring", "600w", "-d", database, "--json"))["certificates"]]
    assert len(ends) == 3 and ends == sorted(ends)
    assert len(answer(mailsec("cert", "list", "--anchors", "-d", database, "--json"))["certificates"]) == 1
    assert len(answer(mailsec("cert", "list", "--address", "BOB@example.net", "-d", database, "--json"))["certificates"]) == 2
    assert answer(mailsec("cert", "list", "--own", "-d", database, "--json"))["certificates"] == []
    assert "none like that" in mailsec("cert", "list", "--own", "-d", database)[1]
    code, _, err = mailsec("cert", "list", "--expiring", "soon", "-d", database)
    assert code == 2 and "days" in err
