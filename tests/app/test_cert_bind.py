"""`mailsec cert bind` and `cert import --bind`: certificates of gateways, said and shown."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from mailsec.keys.files import pem
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

NOW = datetime.now(UTC)


@pytest.fixture
def gateway(database, folder) -> str:
    """A file with the certificate of the partner's gateway, whose authority is an anchor."""
    key, at = make_key("ec-p256"), NOW - timedelta(days=2)
    ca = IssuedBy(make_ca(common_name="CA", key=key, at=at, random=os.urandom), key)
    with CertDb.open(database) as opened:
        opened.add(ca.certificate, "CA", trust=TrustFlags.parse(",C,"), domains=("*",), at=NOW)
    names = [Address.parse("gateway@gw.example")]
    der = issue_mail(ca, addresses=names, public_key=public_key_of(make_key("ec-p256")), at=at, random=os.urandom)
    (folder / "gateway.pem").write_bytes(pem(der, "CERTIFICATE"))
    return "gateway.pem"


def answer(result: tuple[int, str, str], code: int = 0) -> dict:
    got, out, err = result
    assert got == code, err + out
    return json.loads(out)


def test_imported_bound_found_and_taken_back(mailsec, database, gateway):
    told = answer(
        mailsec(
            "cert",
            "import",
            gateway,
            "--nickname",
            "partner",
            "--bind",
            "@Partner.example",
            "--bind",
            "x@y.example",
            "-d",
            database,
            "--json",
        )
    )
    assert told["certificates"][0]["bound"] == ["@partner.example", "x@y.example"]
    found = answer(mailsec("cert", "find", "bob@partner.example", "-d", database, "--json"))
    assert found["certificates"][0]["domain"] == "partner.example"
    assert "for all of @partner.example" in mailsec("cert", "find", "bob@partner.example", "--explain", "-d", database)[1]
    assert answer(mailsec("cert", "find", "x@y.example", "-d", database, "--json"))["certificates"][0]["domain"] is None
    assert "@partner.example" in mailsec("cert", "show", "partner", "-d", database)[1]
    assert "@partner.example" in mailsec("cert", "list", "-d", database)[1]
    code, out, _ = mailsec("cert", "bind", "partner", "@partner.example", "--remove", "-d", database)
    assert code == 0 and out.strip() == '"partner" is no longer for everybody of @partner.example'
    assert mailsec("cert", "find", "bob@partner.example", "-d", database)[0] == 1
    code, out, _ = mailsec("cert", "bind", "partner", "@partner.example", "-d", database)
    assert code == 0 and out.strip() == '"partner" encrypts mail to everybody of @partner.example'
    assert mailsec("cert", "find", "bob@partner.example", "-d", database)[0] == 0


def test_a_message_in_a_file_is_encrypted_with_it(mailsec, database, gateway, folder):
    assert mailsec("cert", "import", gateway, "--bind", "@partner.example", "-d", database)[0] == 0
    (folder / "m.eml").write_bytes(b"From: a@example.org\r\nTo: bob@partner.example\r\n\r\nhello\r\n")
    code, out, err = mailsec("smime", "encrypt", "m.eml", "--to", "bob@partner.example", "-d", database, "-o", "out.eml")
    assert code == 0 and b"enveloped-data" in (folder / "out.eml").read_bytes(), out + err
    assert mailsec("smime", "encrypt", "m.eml", "--to", "bob@other.example", "-d", database)[0] != 0


@pytest.mark.parametrize("place", ["*", "partner.example", "@", "@.example"])
def test_wrong_places(mailsec, database, gateway, place):
    for arguments in (["bind", "CA", place], ["import", gateway, "--bind", place]):
        code, _, err = mailsec("cert", *arguments, "-d", database)
        assert code == 2 and "cannot be bound" in err and "@example.net" in err


def test_wrong_certificates(mailsec, database, gateway, folder):
    code, _, err = mailsec("cert", "bind", "CA", "@partner.example", "-d", database)
    assert code != 0 and "authority" in err
    code, _, err = mailsec("cert", "bind", "nobody", "@partner.example", "-d", database)
    assert code != 0 and "no certificate" in err
    (folder / "two.pem").write_bytes((folder / gateway).read_bytes() * 2)
    code, _, err = mailsec("cert", "import", "two.pem", "--bind", "@partner.example", "-d", database)
    assert code != 0 and "--bind is for one" in err and "mailsec cert bind" in err
    assert mailsec("cert", "import", "--anchors", gateway, "--bind", "@partner.example", "-d", database)[0] != 0
