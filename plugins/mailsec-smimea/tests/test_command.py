"""`mailsec smimea`: the line for the zone, and what it says to wrong calls."""

from __future__ import annotations

import json
import subprocess
import sys

import dns.rdata
import pytest

from mailsec.keys.files import pem
from mailsec.testing.authority import Authority
from mailsec_smimea.names import owner_name

BOB = Authority().issue("bob@example.net").certificate


def mailsec(*arguments: str, given: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "mailsec", *arguments], input=given, capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_line_reads_back_as_the_certificate_that_was_given():
    code, out, err = mailsec("smimea", "bob@example.net", "-", given=BOB)
    owner, ttl, line = out.strip().split(" ", 2)
    assert (code, err, owner, ttl) == (0, "", owner_name("bob", "example.net") + ".", "3600")
    record = dns.rdata.from_text("IN", "SMIMEA", line.removeprefix("IN SMIMEA "))
    assert (record.usage, record.selector, record.mtype, record.cert) == (3, 0, 0, BOB)


def test_it_warns_of_what_will_not_work_as_meant(tmp_path):
    (tmp_path / "bob.pem").write_bytes(pem(BOB, "CERTIFICATE"))
    code, out, err = mailsec("smimea", "Carol@example.net", str(tmp_path / "bob.pem"), "--matching", "sha2-256", "--json")
    assert code == 0 and json.loads(out)["matching"] == 1
    assert "does not name Carol@example.net" in err and "nobody can encrypt" in err and owner_name("carol", "example.net") in err


def test_the_certificate_comes_from_the_database_by_its_nickname(tmp_path):
    database = str(tmp_path / "certificates.db")
    assert mailsec("db", "init", "-d", database, "--no-password", "--anchors", "none")[0] == 0
    (tmp_path / "bob.pem").write_bytes(pem(BOB, "CERTIFICATE"))
    assert mailsec("cert", "import", str(tmp_path / "bob.pem"), "--nickname", "Bob", "-d", database)[0] == 0
    code, out, err = mailsec("smimea", "bob@example.net", "--cert", "Bob", "-d", database)
    assert code == 0 and out.strip().endswith(BOB.hex()), err
    code, out, err = mailsec("smimea", "bob@example.net", "--cert", "-x", "-d", database)
    assert code == 3 and "mailsec cert list" in err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("bob@example.net",), 2, "which certificate"),
        (("bob@[192.0.2.1]", "-"), 2, "domain name"),
        (("bob@example.net", "-", "--usage", "4"), 2, "usage"),
        (("bob@example.net", "-"), 3, "certificate"),
    ],
)
def test_wrong_calls(arguments, code, word):
    done = mailsec("smimea", *arguments, given=b"no certificate")
    assert done[0] == code and word in done[2] and "Traceback" not in done[2]
