"""NSS directories whose files are torn, somebody else's or locked: one sentence, and nothing is taken for an empty database."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from mailsec.app.commands.init import set_up_database
from mailsec.app.config.render import render
from mailsec.store import nss_files


def overwrite(path: Path) -> None:
    """12,000 octets in the middle: the header stays what it was."""
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xa5" * 12000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def no_database(path: Path) -> None:
    path.write_bytes(b"To whom it may concern\n" * 1000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


TORN = {
    "overwritten": (overwrite, "is damaged"),
    "cut": (cut, "is damaged"),
    "no SQLite": (no_database, "is damaged"),
    "another program's": (foreign, "another program's database"),
    "empty": (empty, "it is empty"),
}
COMMANDS = {
    "list": ("cert", "list", "-d", "nss:nss"),
    "list with the password": ("cert", "list", "-d", "nss:nss", "--passphrase-file", "nsspw"),
    "change": ("cert", "rename", "alice", "Alice", "-d", "nss:nss", "--passphrase-file", "nsspw"),
    "check": ("db", "check", "-d", "nss:nss", "--passphrase-file", "nsspw"),
    "merge": ("db", "merge", "nss:nss", "--source-passphrase-file", "nsspw", "-d", "x.db"),
    "tokens": ("token", "selftest", "NSS Certificate DB", "--nss", "nss", "--pin-file", "nsspw"),
    "backup": ("db", "backup", "copy", "-d", "nss:nss"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize("how", ["overwritten", "cut"])
def test_a_torn_file_is_no_empty_database(mailsec, database, nss, command: tuple[str, ...], how: str):
    """Attack by accident: a certificate that was distrusted there would be one that nobody knows."""
    tear, said = TORN[how]
    tear(nss.path / "cert9.db")
    before = (nss.path / "cert9.db").read_bytes()
    code, out, err = mailsec(*command)
    assert code == 78 and said in err and "cert9.db" in err and "restore" in err, out + err
    assert (nss.path / "cert9.db").read_bytes() == before
    assert "alice" not in mailsec("cert", "list", "-d", database)[1]


@pytest.mark.parametrize("file", ["cert9.db", "key4.db"])
@pytest.mark.parametrize("how", TORN)
def test_what_is_no_file_of_nss_is_said_so_and_left_as_it_is(mailsec, nss, file: str, how: str):
    tear, said = TORN[how]
    tear(nss.path / file)
    before = (nss.path / file).read_bytes()
    code, _, err = mailsec("cert", "list", "-d", "nss:nss", "--passphrase-file", "nsspw")
    assert code == 78 and said in err and file in err and "restore" in err, err
    assert (nss.path / file).read_bytes() == before


def test_an_index_that_names_other_rows_is_found_by_db_check(mailsec, nss):
    with contextlib.closing(sqlite3.connect(nss.path / "cert9.db")) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = 'CREATE INDEX label ON nssPublic (a101)' WHERE name = 'label'")
    code, _, err = mailsec("db", "check", "-d", "nss:nss", "--passphrase-file", "nsspw")
    assert code == 78 and "is damaged" in err


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_file_that_another_program_has_locked(mailsec, database, nss, monkeypatch, command: tuple[str, ...]):
    monkeypatch.setattr(nss_files, "WAIT_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(nss.path / "cert9.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        code, _, err = mailsec(*command)
        assert code == 75 and "another program has it locked" in err and "cert9.db" in err, err
        connection.execute("ROLLBACK")
    assert mailsec(*command)[0] == (1 if command[0] == "db" and command[1] == "merge" else 0)


def test_check_says_it_of_a_module_of_the_configuration(mailsec, nss, folder):
    set_up_database(folder, "gw.example.org", ["example.org"])
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"]},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "passphrase": {"method": "file", "file": "passphrase"},
        "relay": {"next_hop": "smtp://[127.0.0.1]:2526"},
        "module": [{"name": "nss", "nss": [str(nss.path)]}],
    }
    (folder / "mailsec.toml").write_text(render(values))
    assert "cert9.db" not in mailsec("check", "-c", "mailsec.toml")[2]
    overwrite(nss.path / "cert9.db")
    for more in ((), ("--login",)):
        code, _, err = mailsec("check", "-c", "mailsec.toml", *more)
        assert code == 0 and "cert9.db is damaged" in err and "restore" in err
