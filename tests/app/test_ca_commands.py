"""A company's own authority at the command line: issue, request, revoke, list, renew; and the private keys."""

from __future__ import annotations

import json
import subprocess

import pytest


@pytest.fixture
def ca(mailsec, database) -> str:
    arguments = ("--new-ca", "My CA", "--for", "example.org", "--key", "ec-p256", "-o", "ca.pem", "--json")
    answer(mailsec("cert", "issue", "-d", database, *arguments))
    return "My CA"


@pytest.fixture
def issue(mailsec, database, ca):
    """issue("alice"): a certificate for alice@example.org, also in alice.pem."""

    def run(name: str) -> dict:
        arguments = ("--address", f"{name}@example.org", "--key", "ec-p256", "-o", f"{name}.pem", "--json")
        return answer(mailsec("cert", "issue", "-d", database, *arguments))["certificates"][0]

    return run


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err + out
    return json.loads(out)


def openssl(need, *arguments: str) -> str:
    done = subprocess.run([need("openssl"), *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_a_revoked_certificate_stands_on_the_list_and_openssl_says_so(mailsec, database, issue, need):
    for name in ("alice", "bob"):
        issue(name)
    code, out, _ = mailsec("cert", "revoke", "bob@example.org", "--reason", "keyCompromise", "-d", database)
    assert code == 0 and "is revoked" in out and "crl issue" in out
    told = answer(mailsec("crl", "issue", "-d", database, "-o", "ca.crl", "--json"))
    assert told["files"] == ["ca.crl"] and told["lists"][0]["issuer"] == "CN=My CA"
    for name, words in (("alice", "alice.pem: OK"), ("bob", "certificate revoked")):
        assert words in openssl(need, "verify", "-crl_check", "-CAfile", "ca.pem", "-CRLfile", "ca.crl", f"{name}.pem")
    text = openssl(need, "crl", "-in", "ca.crl", "-noout", "-text")
    assert "Key Compromise" in text and "CRL Number" in text
    assert mailsec("crl", "list", "-d", database)[1].count("CN=My CA") == 1  # the gateway has it


def test_numbers_of_lists_grow_within_one_second(mailsec, database, ca):
    numbers = [int(answer(mailsec("crl", "issue", "-d", database, "--json"))["lists"][0]["crl_number"], 16) for _ in range(3)]
    assert numbers == sorted(set(numbers))


def test_on_hold_is_taken_back_and_revoked_for_good_is_not(mailsec, database, issue):
    serial = issue("alice")["serial"]
    assert mailsec("cert", "revoke", "--serial", serial, "--reason", "certificateHold", "-d", database)[0] == 0
    assert mailsec("cert", "revoke", "alice@example.org", "--release", "-d", database)[0] == 0
    assert answer(mailsec("cert", "revoke", "alice@example.org", "-d", database, "--json"))["changed"] is True
    code, out, _ = mailsec("cert", "revoke", "alice@example.org", "-d", database)
    assert code == 0 and "revoked before" in out
    code, _, err = mailsec("cert", "revoke", "alice@example.org", "--release", "-d", database)
    assert code == 1 and "not on hold" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("revoke",), 2, "which certificate"),
        (("revoke", "nobody"), 1, "no certificate"),
        (("revoke", "My CA"), 1, "not issued by a CA of ours"),
        (("revoke", "--serial", "77"), 1, "was issued here"),
        (("revoke", "--serial", "xyz"), 2, "not a serial number"),
        (("issue", "--new-key", "--address", "a@example.org"), 2, "--renew-ca"),
        (("issue", "--responder", "OCSP", "--usage", "sign"), 2, "for mail"),
        (("issue", "--responder", "OCSP", "--host", "a.example.org"), 2, "one of"),
        (("issue", "--responder", "OCSP", "--key", "x25519"), 2, "a key that signs"),
        (("issue", "--request", "absent.csr"), 3, "absent.csr"),
        (("issue", "--request", "ca.pem"), 3, "CERTIFICATE REQUEST"),
        (("issue", "--renew-ca", "nobody"), 1, "no certificate"),
        (("issue", "--address", "a@example.org", "--key", "rsa-1"), 2, "rsa-1"),
        (("request", "--address", "nonsense"), 3, "nonsense"),
        (("request", "--address", "a@example.org", "--with", "nobody"), 1, "key list"),
        (("request", "--address", "a@example.org", "--key", "x25519"), 3, "signs nothing"),
    ],
)
def test_wrong_calls_are_told_with_a_hint_and_change_nothing(mailsec, database, ca, arguments, code, words):
    before = mailsec("cert", "list", "-d", database, "--json")[1], mailsec("key", "list", "-d", database, "--json")[1]
    got, _, err = mailsec("cert", *arguments, "-d", database)
    assert got == code and words in err
    assert (mailsec("cert", "list", "-d", database, "--json")[1], mailsec("key", "list", "-d", database, "--json")[1]) == before


@pytest.mark.parametrize("kind", ["rsa-2048", "p256", "ed25519", "ml-dsa-65"])
def test_a_request_its_certificate_from_outside_and_the_key_that_waited(mailsec, folder, database, kind):
    told = answer(mailsec("cert", "request", "-d", database, "--address", "alice@example.org", "--key", kind, "-o", "alice.csr", "--json"))
    assert "waits for its certificate" in mailsec("key", "list", "-d", database)[1]
    # Another database plays the authority outside.
    mailsec("db", "init", "--no-password", "-d", "outside.db")
    mailsec("cert", "issue", "-d", "outside.db", "--new-ca", "Outside", "--for", "any", "--key", "ec-p256")
    issued = answer(mailsec("cert", "issue", "-d", "outside.db", "--request", "alice.csr", "-o", "alice.pem", "--json"))
    assert issued["certificates"][0]["addresses"] == ["alice@example.org"] and not issued["certificates"][0]["has_key"]
    entry = answer(mailsec("cert", "import", "alice.pem", "-d", database, "--json"))["certificates"][0]
    assert entry["has_key"] and entry["nickname"] == "alice@example.org"
    key = next(key for key in answer(mailsec("key", "list", "-d", database, "--json"))["keys"] if key["key_id"] == told["key_id"])
    assert key["nicknames"] == ["alice@example.org"] and key["verified"]


def test_a_responder_of_the_ca_has_a_key_for_ocsp_answers_and_nothing_else(mailsec, database, ca, need):
    told = answer(mailsec("cert", "issue", "-d", database, "--responder", "Our OCSP", "--key", "ec-p256", "-o", "ocsp.pem", "--json"))
    entry = told["certificates"][0]
    assert entry["nickname"] == "Our OCSP" and entry["has_key"] and not entry["addresses"]
    assert "ocsp.pem: OK" in openssl(need, "verify", "-CAfile", "ca.pem", "-purpose", "ocsphelper", "ocsp.pem")
    text = openssl(need, "x509", "-in", "ocsp.pem", "-noout", "-text")
    assert "OCSP Signing" in text and "OCSP No Check" in text and "Alternative Name" not in text


def test_a_renewed_ca_issues_from_then_on_and_both_keys_have_their_lists(mailsec, database, ca, issue, need):
    issue("old")
    arguments = ("--renew-ca", ca, "--new-key", "--key", "ec-p256", "-o", "new-ca.pem", "--json")
    renewed = answer(mailsec("cert", "issue", "-d", database, *arguments))["certificates"][0]
    assert renewed["nickname"] == ca and renewed["domains"] == ["example.org"]
    issue("new")
    assert "new.pem: OK" in openssl(need, "verify", "-CAfile", "new-ca.pem", "new.pem")
    assert "old.pem: OK" in openssl(need, "verify", "-CAfile", "ca.pem", "old.pem")
    for name in ("old", "new"):
        assert mailsec("cert", "revoke", f"{name}@example.org", "-d", database)[0] == 0
    told = answer(mailsec("crl", "issue", "-d", database, "-o", "list.crl", "--json"))
    assert len(told["files"]) == len(told["lists"]) == 2
    for file, authority, name in (("list.crl", "new-ca.pem", "new"), (told["files"][1], "ca.pem", "old")):
        assert "certificate revoked" in openssl(need, "verify", "-crl_check", "-CAfile", authority, "-CRLfile", file, f"{name}.pem")


def test_keys_are_made_assigned_and_deleted(mailsec, database):
    made = answer(mailsec("key", "generate", "--key", "ed25519", "-d", database, "--json"))["keys"][0]
    assert made["nicknames"] == [] and made["kind"] == "ed25519"
    short = made["key_id"][:16]
    arguments = ("--with", short, "--address", "a@example.org", "--json")
    assert answer(mailsec("cert", "request", "-d", database, *arguments))["key_id"] == made["key_id"]
    told = answer(mailsec("key", "assign", short, "@example.org", "-d", database, "--usage", "sign", "--json"))["keys"][0]
    assert told["assigned"] == [{"pattern": "@example.org", "usage": "sign"}]
    assert "@example.org (sign)" in mailsec("key", "list", "-d", database)[1]
    assert mailsec("key", "assign", short, "-d", database)[0] == 2
    code, _, err = mailsec("key", "delete", short, "-d", database)
    assert code == 2 and "--yes" in err
    assert mailsec("key", "delete", short, "--yes", "-d", database)[0] == 0
    assert mailsec("key", "delete", short, "--yes", "-d", database)[0] == 1


def test_a_key_that_lies_on_a_token_is_assigned_by_its_certificate(mailsec, database, issue):
    issue("company")
    mailsec("key", "delete", "company@example.org", "--yes", "-d", database)
    told = answer(mailsec("key", "assign", "company@example.org", "@example.org", "-d", database, "--json"))["keys"][0]
    assert told["assigned"] == [{"pattern": "@example.org", "usage": None}]
    assert answer(mailsec("cert", "show", "company@example.org", "-d", database, "--json"))["certificates"][0]["assigned"] == [
        "@example.org"
    ]
    assert answer(mailsec("key", "assign", "company@example.org", "--nobody-else", "-d", database, "--json"))["keys"][0]["assigned"] == []
    code, _, err = mailsec("key", "assign", "nobody", "@example.org", "-d", database)
    assert code == 1 and "key list" in err


def test_a_certificate_deleted_with_its_key_kept_comes_back_with_it(mailsec, database, issue):
    issue("alice")
    assert answer(mailsec("cert", "delete", "alice@example.org", "--keep-key", "--yes", "-d", database, "--json"))["keys"] == 0
    assert answer(mailsec("cert", "import", "alice.pem", "-d", database, "--json"))["certificates"][0]["has_key"]
    assert answer(mailsec("cert", "delete", "alice@example.org", "--yes", "-d", database, "--json"))["keys"] == 1
