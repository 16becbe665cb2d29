"""`mailsec ocsp check` and `mailsec crl …` against real servers."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from authority import Authority
from cryptography.hazmat.primitives.serialization import Encoding

from mailsec.app.cli import run as run_command
from mailsec.app.output import Output
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from tests.revocation.servers import OpensslResponder, Web

PROJECT = Path(__file__).resolve().parents[2]
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
PAGE = (PROJECT / "docs" / "json.md").read_text()


@pytest.fixture
def web():
    web = Web()
    yield web
    web.close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with an authority's certificate, a database that trusts it, `run`, and `here` for commands that ask nobody."""
    tmp_path.chmod(0o700)
    ca = Authority(at=NOW)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    with CertDb.create(str(tmp_path / "mailsec.db"), b"", at=NOW, cost=2) as database:
        database.add(ca.der, "CA", trust=TrustFlags.parse(",C,"), domains=("*",), at=NOW)

    def run(*arguments: str) -> tuple[int, dict]:
        done = subprocess.run(
            [sys.executable, "-m", "mailsec", *arguments, "--json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    def here(*arguments: str) -> tuple[int, dict]:
        monkeypatch.chdir(tmp_path)
        out, err = io.StringIO(), io.StringIO()
        code = run_command([*arguments, "--json"], Output(out, err))
        assert "Traceback" not in err.getvalue(), err.getvalue()
        return code, json.loads(out.getvalue())

    def person(address: str, **sources):
        someone = ca.person(address, **sources)
        (tmp_path / f"{address}.pem").write_bytes(someone.parsed.public_bytes(Encoding.PEM))
        return someone

    return SimpleNamespace(path=tmp_path, ca=ca, run=run, here=here, person=person)


def documented(command: str) -> set[str]:
    import re

    section = re.search(rf"^## {re.escape(command)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE).group(1)
    heads = [line.partition(":")[0] for line in section.splitlines() if line.startswith("- ")]
    return {name for head in heads for name in re.findall(r"`([a-z_]+)`", head)} | {"error"}


def test_openssl_says_good_and_revoked(place, need):
    responder = OpensslResponder(need("openssl"), place.ca, place.path / "responder")
    carol, dave = place.person("carol@example.net", ocsp=responder.url), place.person("dave@example.net")
    place.ca.revoke(dave)
    responder.start(carol, dave)
    try:
        code, value = place.run("ocsp", "check", "carol@example.net.pem", "--issuer", "ca.pem", "--url", responder.url)
        assert (code, value["status"], value["source"], value["kept"]) == (0, "good", responder.url, False)
        assert 0 <= value["age"] < 60 and value["asked_again"] < value["next_update"]
        assert set(value) == documented("ocsp check")
        code, value = place.run("ocsp", "check", "dave@example.net.pem", "-d", "mailsec.db", "--url", responder.url)
        assert (code, value["status"], value["reason"]) == (1, "revoked", "keyCompromise") and value["revoked_at"]
    finally:
        responder.stop()
    # What was learnt is kept, and does not need the responder.
    code, value = place.run("ocsp", "check", "dave@example.net.pem", "-d", "mailsec.db")
    assert (code, value["status"], value["kept"]) == (1, "revoked", True)
    code, value = place.run("ocsp", "check", "dave@example.net.pem", "-d", "mailsec.db", "--fresh", "--url", responder.url)
    assert (code, value["status"]) == (75, "unknown") and value["reasons"][0]["code"] == "revocation-unknown"


def test_what_a_certificate_names_goes_through_the_filter(place, web):
    place.person("carol@example.net", ocsp=web.url("/ocsp"))
    web.pages["/ocsp"] = place.ca.answer
    code, value = place.run("ocsp", "check", "carol@example.net.pem", "--issuer", "ca.pem")
    assert code == 75 and web.asked == [] and "not for HTTP" in value["reasons"][0]["message"]


def test_a_certificate_that_names_no_responder(place):
    place.person("carol@example.net")
    code, value = place.run("ocsp", "check", "carol@example.net.pem", "--issuer", "ca.pem")
    assert (code, value["status"]) == (1, "not-checked")
    code, value = place.run("ocsp", "check", "carol@example.net.pem")
    assert code == 3 and "issuer" in value["error"]["message"]


def test_lists_are_fetched_listed_imported_and_deleted(place, web):
    web.pages["/ca.crl"] = place.ca.crl()
    code, value = place.run("crl", "fetch", web.url("/ca.crl"), "-d", "mailsec.db")
    assert code == 0 and value["lists"][0]["issuer"] == "CN=Revoking CA" and value["lists"][0]["url"] == web.url("/ca.crl")
    assert set(value) == documented("crl list")
    assert set(value["lists"][0]) <= set(__import__("re").findall(r'"([a-z_]+)"', PAGE))
    (place.path / "new.crl").write_bytes(place.ca.crl(number=2))
    assert place.run("crl", "import", "new.crl", "-d", "mailsec.db")[0] == 0
    code, value = place.run("crl", "list", "-d", "mailsec.db")
    assert [one["crl_number"] for one in value["lists"]] == ["1", "2"]
    code, value = place.run("crl", "delete", "1", "9", "-d", "mailsec.db")
    assert code == 1 and value["deleted"] == [1] and set(value) == documented("crl delete")
    assert place.run("crl", "fetch", web.url("/ca.crl"), "-o", "out.crl")[0] == 0
    assert (place.path / "out.crl").read_bytes() == web.pages["/ca.crl"]


def test_a_list_from_where_a_certificate_says_it_is(place, web):
    place.person("carol@example.net", crl=web.url("/ca.crl"))
    web.pages["/ca.crl"] = place.ca.crl()
    code, _ = place.run("crl", "fetch", "carol@example.net.pem", "-d", "mailsec.db")
    assert code == 75 and web.asked == [], "a certificate does not lead us to our own machines"
    assert place.run("crl", "fetch", "CA", "-d", "mailsec.db")[0] == 3


@pytest.mark.parametrize(("page", "code"), [(b"<html>", 3), ("endless", 1), (None, 75)])
def test_what_is_no_list(place, web, page, code):
    if page is not None:
        web.pages["/x"] = page
    assert place.run("crl", "fetch", web.url("/x"), "-d", "mailsec.db")[0] == code


def test_what_is_no_list_in_a_file(place):
    (place.path / "x.crl").write_bytes(b"\x30\x03\x02\x01\x00")
    code, value = place.run("crl", "import", "x.crl", "-d", "mailsec.db")
    assert code == 3 and "x.crl" in value["error"]["message"]


# -- judging with a database ------------------------------------------------------------------------------------------------------


def test_a_certificate_is_verified_with_the_anchors_and_the_evidence_of_a_database(place):
    carol = place.person("carol@example.net")
    place.person("dave@example.net", crl="http://crl.example/ca.crl")
    with_database = ("-d", "mailsec.db", "--purpose", "email-sign")
    code, value = place.here("cert", "verify", "carol@example.net.pem", *with_database)
    assert (code, value["valid"], value["revocation"]) == (0, True, "not-checked"), "nothing is kept about it"
    place.ca.revoke(carol)
    (place.path / "ca.crl").write_bytes(place.ca.crl())
    assert place.here("crl", "import", "ca.crl", "-d", "mailsec.db")[0] == 0
    code, value = place.here("cert", "verify", "carol@example.net.pem", *with_database)
    assert (code, value["valid"], value["revocation"]) == (1, False, "revoked")
    code, value = place.here("cert", "verify", "dave@example.net.pem", *with_database)
    assert (code, value["valid"], value["revocation"]) == (0, True, "good")
    at = ("--at", (NOW + dt.timedelta(days=2)).isoformat())
    code, value = place.here("cert", "verify", "dave@example.net.pem", *with_database, *at)
    assert value["revocation"] == "unknown" and "crl-stale" in [reason["code"] for reason in value["reasons"]]


def test_a_certificate_that_the_database_distrusts_is_not_valid(place):
    carol = place.person("carol@example.net")
    with CertDb.open(str(place.path / "mailsec.db")) as database:
        database.add(carol.der, "carol", trust=TrustFlags.parse(",p,"), at=NOW)
    code, value = place.here("cert", "verify", "carol@example.net.pem", "-d", "mailsec.db", "--purpose", "email-sign")
    assert code == 1 and "distrusted" in [reason["code"] for reason in value["reasons"]]


def test_a_signed_message_is_verified_with_the_evidence_of_a_database(place, kit):
    carol = place.person("carol@example.net")
    (place.path / "signed.eml").write_bytes(kit.signed(carol))
    assert place.here("smime", "verify", "signed.eml", "-d", "mailsec.db")[1]["trusted"] is True
    place.ca.revoke(carol)
    (place.path / "ca.crl").write_bytes(place.ca.crl())
    place.here("crl", "import", "ca.crl", "-d", "mailsec.db")
    code, value = place.here("smime", "verify", "signed.eml", "-d", "mailsec.db")
    assert (code, value["trusted"], value["revocation"], value["chain_valid"]) == (1, False, "revoked", False)


def configure(place, database: str, more: str) -> None:
    """A small mailsec.toml."""
    (place.path / "mailsec.toml").write_text(
        '[gateway]\nhostname = "gw.example.org"\ndomains = ["example.org"]\n'
        f'[database]\nlocation = "{database}"\n'
        '[[listener]]\naddress = "127.0.0.1:10025"\nprotocol = "smtp"\norigin = "trusted"\nsenders = ["@example.org"]\n'
        '[relay]\nnext_hop = "smtp://[127.0.0.1]:10026"\n' + more
    )


def test_check_says_that_a_proxy_decides_which_addresses_may_be_asked(place):
    (place.path / "spool").mkdir(mode=0o700)
    configure(place, "mailsec.db", '[spool]\ndirectory = "spool"\n[revocation]\nproxy = "http://proxy.example.org:3128"\n')
    code, value = place.here("check", "-c", "mailsec.toml")
    assert code == 0 and any("proxy.example.org:3128: that proxy, not mailsec, decides" in note for note in value["notes"])
    configure(place, "mailsec.db", '[spool]\ndirectory = "spool"\n')
    assert place.here("check", "-c", "mailsec.toml")[1]["notes"] == []


def test_a_configuration_brings_its_anchor_files_and_lists(place):
    carol = place.person("carol@example.net")
    place.ca.revoke(carol)
    with CertDb.create(str(place.path / "empty.db"), b"", at=NOW, cost=2):
        pass
    (place.path / "ca.crl").write_bytes(place.ca.crl())
    configure(place, "empty.db", '[trust]\nanchor_files = ["ca.pem"]\n[revocation]\ncrl_files = ["ca.crl"]\n')
    code, value = place.here("cert", "verify", "carol@example.net.pem", "-c", "mailsec.toml", "--purpose", "email-sign")
    assert (code, value["revocation"]) == (1, "revoked") and len(value["chain"]) == 2
