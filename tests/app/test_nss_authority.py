"""A company's authority whose key lies in an NSS directory: what certutil -S, -C and crlutil -G, -M do, and NSS's tools agree."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from mailsec.testing.authority import Authority
from mailsec.x509.certificate import load_certificate
from mailsec.x509.crl import load_crl
from mailsec.x509.issue_crl import issue_crl


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err + out
    return json.loads(out)


def openssl(need, *arguments: str) -> str:
    done = subprocess.run([need("openssl"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_a_ca_of_certutil_issues_and_certutil_finds_it_valid(on, nss, need, folder):
    told = answer(on("cert", "issue", "--ca", "Mail CA", "--address", "bob@example.org", "-o", "bob.pem", "--json"))["certificates"][0]
    assert (told["nickname"], told["has_key"]) == ("bob@example.org", True)
    assert nss.trust()["bob@example.org"] == "u,u,u"
    for usage in ("S", "R"):
        assert "certificate is valid" in nss.run("certutil", "-V", "-n", "bob@example.org", "-u", usage)
    assert on("cert", "export", "Mail CA", "-o", "ca.pem")[0] == 0
    assert "bob.pem: OK" in openssl(need, "verify", "-CAfile", "ca.pem", "bob.pem")


def test_a_request_of_certutil_is_answered_by_the_only_ca_there(on, nss, folder):
    nss.run(
        *("certutil", "-R", "-s", "CN=Carol", "-7", "carol@example.org", "-k", "ec", "-q", "nistp256", "-o", str(folder / "carol.csr")),
        *("-a", "-z", str(nss.noise)),
    )
    assert on("cert", "issue", "--request", "carol.csr", "--nickname", "carol")[0] == 0
    assert nss.trust()["carol"] == "u,u,u", "its key waited there"


def test_a_ca_that_we_make_there_vouches_for_any_domain_and_that_is_typed(on, nss):
    code, _, err = on("cert", "issue", "--new-ca", "Second CA", "--for", "example.org")
    assert code == 2 and "--for any" in err
    code, out, _ = on("cert", "issue", "--new-ca", "Second CA", "--for", "any", "--key", "ec-p256")
    assert code == 0 and "any domain" in out
    assert nss.trust()["Second CA"] == "Cu,Cu,u"
    code, _, err = on("cert", "issue", "--host", "mail.example.org")
    assert code == 2 and "several CAs" in err
    assert on("cert", "issue", "--host", "mail.example.org", "--ca", "Second CA")[0] == 0
    assert "certificate is valid" in nss.run("certutil", "-V", "-n", "Server-Cert", "-u", "V")
    assert on("cert", "issue", "--renew-ca", "Second CA", "--days", "4000")[0] == 0
    code, _, err = on("cert", "issue", "--renew-ca", "Second CA", "--new-key")
    assert code == 2 and "--new-ca" in err


def test_what_is_revoked_stands_on_crlutils_list_and_certutil_says_so(on, nss, need, folder):
    code, out, _ = on("cert", "revoke", "alice", "--reason", "keyCompromise")
    assert code == 0 and "list says so" in out
    shown = nss.run("crlutil", "-L", "-n", "Mail CA")
    assert "100 (0x64)" in shown
    assert "revoked" in nss.run("certutil", "-V", "-n", "alice", "-u", "S", check=False)
    (listed,) = answer(on("crl", "list", "--json"))["lists"]
    made = answer(on("crl", "issue", "--days", "30", "-o", "ca.crl", "--json"))
    assert int(made["lists"][0]["crl_number"], 16) > int(listed["crl_number"], 16)
    text = openssl(need, "crl", "-in", "ca.crl", "-noout", "-text")
    assert "Key Compromise" in text and "Serial Number: 64" in text
    assert answer(on("cert", "revoke", "alice", "--json"))["changed"] is False


def test_the_list_that_crlutil_made_is_gone_on_with(on, nss, folder):
    now = datetime.now(UTC) - timedelta(minutes=1)
    (folder / "script").write_text(f"update={now:%Y%m%d%H%M%S}Z\naddcert 500 {now:%Y%m%d%H%M%S}Z\n")
    nss.run("crlutil", "-G", "-n", "Mail CA", "-c", str(folder / "script"), "-Z", "SHA256")
    assert on("cert", "revoke", "--serial", "64", "--reason", "certificateHold")[0] == 0
    assert on("crl", "issue", "--der", "-o", "held.crl")[0] == 0
    ca = load_certificate(_der(nss))
    held = load_crl((folder / "held.crl").read_bytes())
    assert held.find(500, ca.subject) is not None and held.find(100, ca.subject).reason == "certificateHold"
    assert on("cert", "revoke", "alice", "--release")[0] == 0
    code, _, err = on("cert", "revoke", "--serial", "1f4", "--release")
    assert code == 1 and "not on hold" in err
    assert on("crl", "issue", "--der", "-o", "after.crl")[0] == 0
    after = load_crl((folder / "after.crl").read_bytes())
    assert after.find(500, ca.subject) is not None and after.find(100, ca.subject) is None


def test_attack_a_list_that_somebody_else_signed_is_no_register(on, nss, folder):
    """Who may write to the directory would take a revocation away: the next list would be signed without it."""
    assert on("cert", "revoke", "alice")[0] == 0
    assert on("crl", "issue", "--der", "-o", "published.crl")[0] == 0
    octets = bytearray((folder / "published.crl").read_bytes())
    octets[-1] ^= 1
    for number in [row["number"] for row in answer(on("crl", "list", "--json"))["lists"]]:
        assert on("crl", "delete", str(number))[0] == 0
    (folder / "forged.crl").write_bytes(bytes(octets))
    assert on("crl", "import", "forged.crl")[0] == 0
    for command in (("crl", "issue"), ("cert", "revoke", "--serial", "65")):
        code, _, err = on(*command)
        assert code == 1 and "was not signed by" in err and "--previous" in err


def test_a_list_that_was_published_brings_back_what_the_directory_lost(on, nss, folder):
    assert on("cert", "revoke", "alice")[0] == 0
    published = answer(on("crl", "issue", "-o", "published.crl", "--json"))["lists"][0]
    assert on("crl", "delete", str(published["number"]))[0] == 0
    again = answer(on("crl", "issue", "--previous", "published.crl", "-o", "again.crl", "--json"))["lists"][0]
    assert int(again["crl_number"], 16) > int(published["crl_number"], 16)
    assert "100 (0x64)" in nss.run("crlutil", "-L", "-n", "Mail CA")
    other = Authority("Somebody", at=datetime.now(UTC) - timedelta(days=1))
    (folder / "other.crl").write_bytes(issue_crl(other.issuer, (), number=9, at=datetime.now(UTC)))
    code, _, err = on("crl", "issue", "--previous", "other.crl")
    assert code == 1 and "was not signed by" in err


def test_certificates_for_an_address_are_found_and_judged(on, nss, folder):
    found = answer(on("cert", "find", "alice@example.org", "--json"))
    assert [one["source"] for one in found["certificates"]] == ["nss"]
    code, out, _ = on("cert", "find", "nobody@example.org")
    assert code == 1 and "no certificate" in out
    nss.run("certutil", "-M", "-n", "alice", "-t", ",p,")
    code, out, _ = on("cert", "find", "alice@example.org", "--explain")
    assert code == 1 and "distrusted" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("cert", "issue", "--address", "b@example.org", "--assign", "@example.org"), 2, "keeps no assignments"),
        (("cert", "issue", "--address", "b@example.org", "--ca", "alice"), 1, "not a CA"),
        (("cert", "revoke", "nobody"), 1, "no certificate"),
        (("cert", "revoke", "Mail CA"), 1, "not issued by a CA of ours"),
        (("crl", "issue", "--ca", "alice"), 1, "not a CA"),
        (("crl", "issue", "--previous", "absent.crl"), 3, "absent.crl"),
    ],
)
def test_wrong_calls_change_nothing(on, nss, arguments, code, words):
    before = nss.trust(), nss.run("crlutil", "-L")
    got, _, err = on(*arguments)
    assert got == code and words in err
    assert (nss.trust(), nss.run("crlutil", "-L")) == before


def test_a_published_list_is_for_nss_databases_only(mailsec, database):
    code, _, err = mailsec("crl", "issue", "--previous", "x.crl", "-d", database)
    assert code == 2 and "register of its own" in err


def _der(nss) -> bytes:
    import base64

    text = nss.run("certutil", "-L", "-n", "Mail CA", "-a").replace("\r", "")
    return base64.b64decode("".join(text.split("-----")[2].split()))
