"""NSS directories as whole databases: copies of them, what is merged into them, and where their lists came from."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from mailsec.keys.files import pem
from mailsec.testing.authority import Authority
from mailsec.x509.issue_crl import issue_crl
from tests.peers.nss import NssDirectory


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err + out
    return json.loads(out)


def opened(folder, name: str) -> NssDirectory:
    made = NssDirectory.__new__(NssDirectory)
    made.path, made.password_file = folder / name, folder / "nsspw"
    return made


# -- copies --------------------------------------------------------------------------------------------------------------------


def test_a_backup_is_a_directory_that_certutil_opens(mailsec, nss, folder):
    assert mailsec("db", "backup", "copy", "-d", "nss:nss")[0] == 0
    assert opened(folder, "copy").trust() == nss.trust()
    assert (folder / "copy" / "key4.db").stat().st_mode & 0o777 == 0o600 and (folder / "copy").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (folder / "copy").iterdir()) == ["cert9.db", "key4.db", "pkcs11.txt"]
    code, _, err = mailsec("db", "backup", "copy", "-d", "nss:nss")
    assert code == 1 and "already" in err


def test_a_backup_is_put_in_place_again_with_the_rights_of_before(on, mailsec, nss, folder):
    assert mailsec("db", "backup", "copy", "-d", "nss:nss")[0] == 0
    assert on("cert", "delete", "alice", "--yes")[0] == 0
    (nss.path / "key4.db").chmod(0o640)
    code, _, err = on("db", "restore", "copy")
    assert code == 1 and "already" in err and "alice" not in nss.trust()
    told = answer(on("db", "restore", "copy", "--replace", "--json"))
    assert "alice" in nss.trust() and "key4.db.replaced-" in told["replaced"]
    assert (nss.path / "key4.db").stat().st_mode & 0o777 == 0o640
    assert mailsec("db", "restore", "copy", "-d", "nss:fresh", "--passphrase-file", "nsspw")[0] == 0
    assert "alice" in opened(folder, "fresh").trust()


def test_a_backup_whose_trust_somebody_edited_is_not_put_in_place(on, mailsec, nss, folder):
    assert mailsec("db", "backup", "copy", "-d", "nss:nss")[0] == 0
    with contextlib.closing(sqlite3.connect(folder / "copy" / "cert9.db")) as connection, connection:
        assert connection.execute("UPDATE nssPublic SET ace53635b = x'ce534352' WHERE ace53635b IS NOT NULL").rowcount
    before = nss.trust()
    code, _, err = on("db", "restore", "copy", "--replace")
    assert code == 1 and "not whole" in err and "db check -d nss:copy" in err
    assert nss.trust() == before and not list(nss.path.glob("*.replaced-*"))


def test_a_copy_that_is_cut_off_is_not_there(mailsec, nss, folder, monkeypatch):
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mailsec.store.nss_copying.shutil.copyfile", no_room)
    code, _, err = mailsec("db", "backup", "copy", "-d", "nss:nss")
    assert code == 1 and "No space left" in err
    assert list((folder / "copy").iterdir()) == []


def test_a_database_that_is_being_written_is_waited_for_and_then_told(mailsec, nss, folder, monkeypatch):
    monkeypatch.setattr("mailsec.store.nss_files.WAIT_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(nss.path / "key4.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        code, _, err = mailsec("db", "backup", "copy", "-d", "nss:nss")
        assert code == 75 and "another program" in err
        writer.execute("ROLLBACK")
    assert mailsec("db", "backup", "copy", "-d", "nss:nss")[0] == 0


def test_there_is_nothing_to_upgrade(mailsec, nss):
    code, out, _ = mailsec("db", "upgrade", "-d", "nss:nss")
    assert code == 0 and "nothing to do" in out


# -- merged into it ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(mailsec, database, folder) -> str:
    """A mailsec database with a CA for one domain, three people, a list, and a user."""
    issue = ("cert", "issue", "-d", database, "--key", "ec-p256")
    assert mailsec(*issue, "--new-ca", "Our CA", "--for", "example.org")[0] == 0
    for name, more in (("dave", ()), ("erin", ("--assign", "sales@example.org")), ("frank", ())):
        assert mailsec(*issue, "--address", f"{name}@example.org", "--nickname", name, *more)[0] == 0
    assert mailsec("cert", "learnt", "block", "frank@example.org", "-d", database)[0] == 0
    assert mailsec("cert", "revoke", "erin", "-d", database)[0] == 0
    assert mailsec("crl", "issue", "-d", database)[0] == 0
    return database


def test_what_has_a_place_in_nss_comes_and_the_rest_is_told(on, nss, filled):
    code, _, err = on("db", "merge", filled)
    assert code == 1
    assert "Our CA: it is an anchor for example.org" in err and "erin: its key is for sales@example.org" in err
    assert "frank: it is blocked" in err and "rows of the register" in err
    trust = nss.trust()
    assert (trust["Our CA"], trust["dave"], trust["erin"]) == ("Cu,u,u", "u,u,u", ",,") and "frank" not in trust
    assert "Our CA" in nss.run("crlutil", "-L")
    assert "certificate is valid" not in nss.run("certutil", "-V", "-n", "erin", "-u", "S", check=False)
    again = json.loads(on("db", "merge", filled, "--json")[1])
    assert (again["certificates"], again["keys"], again["lists"]) == (0, 0, 0)


def test_an_anchor_for_some_domains_is_one_for_all_only_where_that_is_typed(on, nss, filled):
    on("db", "merge", filled, "--for", "any")
    assert nss.trust()["Our CA"] == "Cu,Cu,u"
    assert "certificate is valid" in nss.run("certutil", "-V", "-n", "dave", "-u", "S")


# -- where lists came from -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["nss", "mailsec"])
def test_where_a_list_came_from_is_kept(on, mailsec, nss, database, folder, where):
    """crlutil -u."""
    call = on if where == "nss" else lambda *arguments: mailsec(*arguments, "-d", database)
    authority = Authority("Outside", at=datetime.now(UTC) - timedelta(days=1))
    (folder / "ca.pem").write_bytes(pem(authority.certificate, "CERTIFICATE"))
    (folder / "a.crl").write_bytes(issue_crl(authority.issuer, (), number=2, at=datetime.now(UTC)))
    url = "http://ca.example/a.crl"
    assert call("crl", "import", "a.crl")[0] == 0
    assert answer(call("crl", "list", "--json"))["lists"][0]["url"] is None
    assert call("crl", "import", "a.crl", "--url", url)[0] == 0
    assert [one["url"] for one in answer(call("crl", "list", "--json"))["lists"]] == [url]
    for wrong in ("ca.example/a.crl", "http://ca.example/a b", "ldap://x"):
        code, _, err = call("crl", "import", "a.crl", "--url", wrong)
        assert code == 2 and "--url" in err
    code, _, err = call("crl", "import", "a.crl", "a.crl", "--url", url)
    assert code == 2 and "one list" in err
