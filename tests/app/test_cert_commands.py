"""The commands db, cert, p12 and user as a person uses them: answers, exit codes, one sentence and a hint for each mistake."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12


@pytest.fixture
def ca(mailsec, database) -> str:
    code, _, err = mailsec("cert", "issue", "-d", database, "--new-ca", "My CA", "--for", "example.org", "--key", "ec-p256")
    assert code == 0, err
    return "My CA"


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


# -- db ---------------------------------------------------------------------------------------------------------------------------


def test_a_database_with_a_password_is_made_used_and_given_another_one(mailsec, folder):
    assert mailsec("db", "init", "-d", "x.db", "--passphrase-file", "password")[0] == 0
    assert mailsec("db", "check", "-d", "x.db", "--passphrase-file", "password")[0] == 0
    code, _, err = mailsec("db", "check", "-d", "x.db", "--passphrase-file", "other")
    assert code == 1 and "password is wrong" in err
    code, _, err = mailsec("db", "check", "-d", "x.db")
    assert code == 2 and "--passphrase-file" in err
    arguments = ("-d", "x.db", "--passphrase-file", "password", "--new-passphrase-file", "other")
    assert answer(mailsec("db", "password", *arguments, "--json"))["password"] is True
    assert mailsec("db", "check", "-d", "x.db", "--passphrase-file", "other")[0] == 0
    assert mailsec("db", "upgrade", "-d", "x.db")[0] == 0


def test_a_database_without_a_password_is_warned_about(mailsec, folder):
    code, _, err = mailsec("db", "init", "-d", "x.db", "--no-password")
    assert code == 0 and "warning" in err and "no password" in err
    code, _, err = mailsec("db", "init", "-d", "x.db", "--no-password")
    assert code == 1 and "exists already" in err
    (folder / "empty").write_text("\n")
    code, _, err = mailsec("db", "init", "-d", "y.db", "--passphrase-file", "empty")
    assert code == 2 and "--no-password" in err and not (folder / "y.db").exists()


def test_without_its_password_a_database_is_shown_and_nothing_is_verified(mailsec, folder):
    mailsec("db", "init", "-d", "x.db", "--passphrase-file", "password")
    mailsec("user", "add", "a@example.org", "-d", "x.db", "--passphrase-file", "password", "--password-file", "other")
    code, out, err = mailsec("user", "list", "-d", "x.db")
    assert code == 0 and "NOT VERIFIED" in out and "--passphrase-file" in err
    code, out, err = mailsec("user", "list", "-d", "x.db", "--passphrase-file", "password")
    assert code == 0 and "NOT VERIFIED" not in out and not err


def test_what_was_edited_is_named_and_can_be_accepted(mailsec, database, ca):
    connection = sqlite3.connect(database)
    connection.execute("UPDATE certificates SET domains = '[\"*\"]'")
    connection.commit()
    connection.close()
    code, out, _ = mailsec("db", "check", "-d", database)
    assert code == 1 and "row 1 of certificates" in out
    assert "NOT VERIFIED" in mailsec("cert", "list", "-d", database)[1]
    assert "NOT VERIFIED" in mailsec("cert", "show", ca, "-d", database)[1]
    code, out, _ = mailsec("db", "check", "-d", database, "--accept")
    assert code == 0 and "removed 1 row" in out
    assert mailsec("db", "check", "-d", database)[0] == 0


def test_nobody_is_trusted_unless_somebody_says_so(mailsec, folder):
    told = answer(mailsec("db", "init", "--no-password", "-d", "x.db", "--json"))
    assert told["anchors"] == 0 and answer(mailsec("cert", "list", "-d", "x.db", "--json"))["certificates"] == []
    assert answer(mailsec("db", "init", "--no-password", "-d", "y.db", "--anchors", "none", "--json"))["anchors"] == 0
    code, _, err = mailsec("db", "init", "--no-password", "-d", "z.db", "--for", "any")
    assert code == 2 and "--anchors" in err and not (folder / "z.db").exists()


def test_anchors_of_mozilla_and_of_files(mailsec, folder, database, ca):
    from mailsec.errors import UsageError
    from mailsec.tokens.roots import find_roots_module

    assert mailsec("cert", "export", ca, "-d", database, "-o", "ca.pem")[0] == 0
    told = answer(mailsec("db", "init", "--no-password", "-d", "y.db", "--anchors", "ca.pem", "--for", "example.org", "--json"))
    assert told["anchors"] == 1
    code, _, err = mailsec("db", "init", "--no-password", "-d", "z.db", "--anchors", "ca.pem")
    assert code == 2 and "--for" in err and not (folder / "z.db").exists()
    code, _, err = mailsec("cert", "import", "--anchors", "mozilla", "--for", "any", "-d", database)
    assert code == 2 and "--for" in err
    try:
        find_roots_module()
    except UsageError:
        pytest.skip("NSS's roots are not installed (Debian: libnss3)")
    told = answer(mailsec("cert", "import", "--anchors", "mozilla", "-d", database, "--json"))
    assert told["anchors"] > 50 and told["added"] == told["anchors"] + told["distrusted"]
    listed = answer(mailsec("cert", "list", "--anchors", "-d", database, "--json"))["certificates"]
    assert {one["source"] for one in listed} == {"mozilla", "issued"} and len(listed) == told["anchors"] + 1


def test_a_backup_is_restored_and_the_damaged_one_put_aside(mailsec, database, ca, folder):
    told = answer(mailsec("db", "backup", "backup.db", "-d", database, "--json"))
    assert told["file"] == "backup.db" and told["size"] == (folder / "backup.db").stat().st_size
    code, _, err = mailsec("db", "backup", "backup.db", "-d", database)
    assert code == 1 and "exists already" in err
    mailsec("cert", "delete", ca, "--yes", "-d", database)
    code, _, err = mailsec("db", "restore", "backup.db", "-d", database)
    assert code == 1 and "exists already" in err
    told = answer(mailsec("db", "restore", "backup.db", "--replace", "-d", database, "--json"))
    assert (folder / told["replaced"]).exists()
    assert mailsec("cert", "show", ca, "-d", database)[0] == 0
    assert mailsec("db", "restore", "backup.db", "-d", "new.db")[0] == 0 and mailsec("db", "check", "-d", "new.db")[0] == 0


def test_a_backup_that_is_not_whole_is_not_restored(mailsec, database, ca, folder):
    mailsec("db", "backup", "backup.db", "-d", database)
    connection = sqlite3.connect("backup.db")
    connection.execute("UPDATE certificates SET domains = '[\"*\"]'")
    connection.commit()
    connection.close()
    code, _, err = mailsec("db", "restore", "backup.db", "--replace", "-d", database)
    assert code == 1 and "not whole" in err and answer(mailsec("db", "check", "-d", database, "--json"))["valid"]
    for wrong in ("absent.db", "password", "."):
        code, _, err = mailsec("db", "restore", wrong, "--replace", "-d", database)
        assert code in (1, 78) and "hint" in err
    assert mailsec("cert", "show", ca, "-d", database)[0] == 0


def test_another_database_is_merged_and_told_about(mailsec, database, ca, folder):
    mailsec("db", "init", "-d", "other.db", "--passphrase-file", "password")
    arguments = ("-d", "other.db", "--passphrase-file", "password")
    mailsec("cert", "issue", "--new-ca", "Partner CA", "--for", "example.net", "--key", "ec-p256", *arguments)
    mailsec("user", "add", "a@example.org", "--password-file", "other", *arguments)
    told = answer(mailsec("db", "merge", "other.db", "--source-passphrase-file", "password", "-d", database, "--json"))
    assert (told["certificates"], told["keys"], told["users"], told["left_out"]) == (1, 1, 1, [])
    code, out, _ = mailsec("db", "merge", "other.db", "--source-passphrase-file", "password", "-d", database)
    assert code == 0 and "1 were here already" in out
    code, _, err = mailsec("db", "merge", "other.db", "-d", database)
    assert code == 2 and "passphrase" in err
    assert mailsec("db", "merge", "absent.db", "-d", database)[0] == 1


def test_no_password_is_refused_where_the_configuration_asks_for_fips_algorithms(mailsec, folder):
    from mailsec.app.config import load_configuration
    from mailsec.app.config.render import render
    from mailsec.app.config.surroundings import find_surrounding_problems
    from mailsec.store.certdb import CertDb

    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"]},
        "database": {"location": "mailsec.db"},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "rule": [{"name": "everybody", "sign": "if-possible", "profile": "fips-algorithms"}],
        "relay": {"next_hop": "smtp://[127.0.0.1]:1"},
    }
    (folder / "mailsec.toml").write_text(render(values))
    code, _, err = mailsec("db", "init", "--no-password", "-c", "mailsec.toml")
    assert code == 1 and "fips-algorithms" in err and not (folder / "mailsec.db").exists()
    mailsec("db", "init", "--no-password", "-d", "mailsec.db")
    with CertDb.open("mailsec.db") as opened:
        problems = find_surrounding_problems(load_configuration("mailsec.toml"), opened, datetime.now(UTC))
    assert any("fips-algorithms" in problem.message and "db password" in problem.hint for problem in problems)
    code, _, err = mailsec("db", "password", "--no-password", "-c", "mailsec.toml")
    assert code == 1 and "fips-algorithms" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("-d", "absent.db"), 1, "db init"),
        (("-d", "."), 1, "directory"),
        (("-d", "password"), 78, "not a mailsec database"),
        (("-d", "postgresql://u:secret@h/d"), 2, "password"),
        (("-d", "x.db", "-c", "y.toml"), 2, "exclude"),
        (("-d", "x.db", "--passphrase-file", "absent"), 3, "absent"),
        ((), 2, "no database was named"),
        (("-c", "absent.toml"), 78, "absent.toml"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_sentence_with_a_hint(mailsec, database, arguments, code, words):
    for command in (("cert", "list"), ("user", "list"), ("db", "check")):
        got, out, err = mailsec(*command, *arguments)
        assert got == code and words in err and not out and "secret" not in err
        got, out, _ = mailsec(*command, *arguments, "--json")
        assert got == code and (code == 2 or json.loads(out)["error"]["message"])


def test_a_locked_database_is_temporary(mailsec, database, folder, monkeypatch):
    monkeypatch.setattr("mailsec.store.database.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("mailsec.store.database.Database.open.__func__.__kwdefaults__", {
        "password": None, "data_key": None, "random": __import__("os").urandom, "busy_timeout": 0.05,
    }, raising=False)  # fmt: skip
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    code, _, err = mailsec("user", "add", "a@example.org", "-d", database, "--password-file", "password")
    holder.execute("ROLLBACK")
    holder.close()
    assert code == 75 and "locked" in err


# -- cert -------------------------------------------------------------------------------------------------------------------------


def test_issue_list_show_and_export(mailsec, database, ca, folder, need):
    issued = answer(
        mailsec("cert", "issue", "-d", database, "--address", "alice@example.org", "--name", "Alice", "--key", "ec-p256", "--json")
    )
    assert issued["certificates"][0]["addresses"] == ["alice@example.org"] and issued["certificates"][0]["trust"] == "u,u,u"
    assert mailsec("cert", "issue", "-d", database, "--host", "localhost", "--host", "127.0.0.1")[0] == 0
    listed = answer(mailsec("cert", "list", "-d", database, "--json"))["certificates"]
    assert [(each["nickname"], each["trust"]) for each in listed] == [
        ("My CA", "Cu,Cu,u"),
        ("Server-Cert", "u,u,u"),
        ("alice@example.org", "u,u,u"),
    ]
    code, out, _ = mailsec("cert", "list", "-d", database)
    assert code == 0 and "for example.org" in out and "NICKNAME" in out
    code, out, _ = mailsec("cert", "show", "alice@example.org", "-d", database)
    assert code == 0 and "CN=Alice" in out and "key is here" in out
    assert mailsec("cert", "export", ca, "-d", database, "-o", "ca.pem")[0] == 0
    code, out, _ = mailsec("cert", "export", "alice@example.org", "-d", database, "--chain")
    (folder / "alice.pem").write_text(out)
    run = subprocess.run(
        [need("openssl"), "verify", "-purpose", "smimesign", "-CAfile", "ca.pem", "alice.pem"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert answer(mailsec("cert", "export", ca, "-d", database, "--json"))["pem"] == (folder / "ca.pem").read_text()
    assert mailsec("cert", "export", ca, "-d", database, "--der", "-o", "ca.der")[0] == 0
    assert x509.load_der_x509_certificate((folder / "ca.der").read_bytes()).subject.rfc4514_string() == "CN=My CA"


def test_trust_rename_and_delete(mailsec, database, ca):
    for flags, more, words in (
        (",C,", ("--for", "any"), "any domain"),
        (",C,", ("--for", "example.org", "--for", "example.com"), "example.com"),
        (",p,", (), "never trusted"),
        ("C,,", (), "not trusted for mail"),
    ):
        code, out, err = mailsec("cert", "trust", ca, flags, *more, "-d", database)
        assert code == 0 and words in out, err
    for flags, more, words in ((",C,", (), "--for"), ("CC", (), "trust flags"), (",C,", ("--for", "any", "--for", "x.org"), "alone")):
        code, _, err = mailsec("cert", "trust", ca, flags, *more, "-d", database)
        assert code == 2 and words in err
    assert mailsec("cert", "rename", ca, "New", "-d", database)[0] == 0
    code, _, err = mailsec("cert", "show", "Neww", "-d", database)
    assert code == 1 and 'did you mean "New"' in err
    code, _, err = mailsec("cert", "rename", "New", "a\x1b[31mb", "-d", database)
    assert code == 2 and "\x1b" not in err
    code, _, err = mailsec("cert", "delete", "New", "-d", database)
    assert code == 2 and "--yes" in err
    code, _, err = mailsec("cert", "delete", "New", "--serial", "77", "--yes", "-d", database)
    assert code == 1
    assert answer(mailsec("cert", "delete", "New", "--yes", "-d", database, "--json"))["keys"] == 1
    assert "no certificate yet" in mailsec("cert", "list", "-d", database)[1]


def test_an_anchor_that_is_no_ca_is_warned_about(mailsec, database, ca):
    mailsec("cert", "issue", "-d", database, "--address", "alice@example.org", "--key", "ec-p256")
    code, _, err = mailsec("cert", "trust", "alice@example.org", ",C,", "--for", "any", "-d", database)
    assert code == 0 and "is none" in err and ",P," in err
    code, _, err = mailsec("cert", "trust", "alice@example.org", ",P,", "-d", database)
    assert code == 0 and not err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "--new-ca"),
        (("--address", "a@example.org", "--host", "x"), 2, "one of"),
        (("--address", "nobody"), 3, "not an address"),
        (("--host", "no host"), 2, "host name"),
        (("--new-ca", "Another"), 2, "--for"),
        (("--new-ca", "My CA", "--for", "any"), 2, "already"),
        (("--address", "a@example.org", "--ca", "nobody"), 1, "nobody"),
        (("--address", "a@example.org", "--key", "rsa-512"), 2, "rsa-512"),
        (("--address", "a@example.org", "--key", "ed25519", "--usage", "encrypt"), 2, "cannot encrypt"),
        (("--address", "a@example.org", "--days", "0"), 2, "days"),
        (("--address", "a@example.org", "--nickname", "a:b"), 2, "colon"),
        (("--address", "a@example.org", "--assign", "nonsense"), 2, "pattern"),
        (("--host", "localhost", "--usage", "sign"), 2, "--usage"),
    ],
)
def test_a_wrong_issue_is_one_sentence_with_a_hint(mailsec, database, ca, arguments, code, words):
    got, out, err = mailsec("cert", "issue", "-d", database, *arguments)
    assert got == code and words in err and "hint" in err and not out


def test_without_a_ca_it_says_how_to_make_one(mailsec, database):
    code, _, err = mailsec("cert", "issue", "-d", database, "--address", "a@example.org")
    assert code == 1 and "--new-ca" in err


def test_import_of_certificates_and_keys(mailsec, database, ca, folder):
    mailsec("db", "init", "-d", "source.db", "--no-password")
    mailsec("cert", "issue", "-d", "source.db", "--new-ca", "Partner CA", "--for", "any", "--key", "ec-p256")
    mailsec("cert", "issue", "-d", "source.db", "--address", "bob@example.net", "--key", "ec-p256")
    (folder / "bundle.pem").write_text(
        "".join(mailsec("cert", "export", name, "-d", "source.db")[1] for name in ("bob@example.net", "Partner CA"))
    )
    assert mailsec("cert", "export", "Partner CA", "-d", "source.db", "--der", "-o", "ca.der")[0] == 0
    code, out, err = mailsec("cert", "import", "bundle.pem", "-d", database)
    assert code == 0 and '"bob@example.net"' in out and '"Partner CA"' in out, err
    code, _, err = mailsec("cert", "import", "bundle.pem", "--trust", ",C,", "--for", "any", "-d", database)
    assert code == 2 and "cert trust" in err
    code, out, _ = mailsec("cert", "import", "ca.der", "--trust", ",C,", "--for", "example.net", "-d", database)
    assert code == 0 and "trust ,C," in out
    code, _, err = mailsec("cert", "import", "ca.der", "--trust", ",C,", "-d", database)
    assert code == 2 and "--for" in err
    code, _, err = mailsec("cert", "import", "ca.der", "--nickname", "x", "--assign", "*", "-d", database)
    assert code == 2 and "--key" in err
    for file, expected in (("password", 3), ("absent", 3), ("x.db", 3)):
        code, out, err = mailsec("cert", "import", file, "-d", database)
        assert code == expected and err.startswith("mailsec: error: ") and not out


def test_a_certificate_that_cryptography_cannot_parse_is_kept_as_octets_and_shown_as_such(mailsec, database, ca, folder):
    mailsec("cert", "issue", "-d", database, "--address", "odd@example.org", "--key", "ec-p256")
    mailsec("cert", "export", "odd@example.org", "-d", database, "--der", "-o", "good.der")
    octets = (folder / "good.der").read_bytes().replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    with pytest.raises(x509.InvalidVersion):
        x509.load_der_x509_certificate(octets)
    (folder / "odd.der").write_bytes(octets)
    entry = answer(mailsec("cert", "import", "odd.der", "--nickname", "odd", "-d", database, "--json"))["certificates"][0]
    assert any("version" in problem for problem in entry["problems"])
    assert "version 8" in mailsec("cert", "show", "odd", "-d", database)[1]
    assert mailsec("cert", "export", "odd", "-d", database, "--der", "-o", "again.der")[0] == 0
    assert (folder / "again.der").read_bytes() == octets
    assert mailsec("db", "check", "-d", database)[0] == 0


def test_many_certificates_are_imported_and_a_bad_one_stops_none(mailsec, database, folder, monkeypatch):
    from mailsec.keys.files import pem
    from mailsec.testing.authority import Authority
    from mailsec.x509.private_keys import make_key, public_key_of

    monkeypatch.setattr("mailsec.store.intake.BATCH", 7)
    authority, public = Authority(), public_key_of(make_key("ec-p256"))
    ders = [authority.certify(public, f"person{number}@example.org") for number in range(30)]
    (folder / "many.pem").write_bytes(
        b"text between\n".join(pem(der, "CERTIFICATE") for der in [*ders[:20], b"\x30\x03\x02\x01\x01", *ders])
    )
    code, out, err = mailsec("cert", "import", "many.pem", "-d", database, "--json")
    told = json.loads(out)
    assert code == 1 and (told["new"], told["known"], told["refused"]) == (30, 20, 1)
    assert err.count("not imported") == 1 and len(told["certificates"]) == 30
    assert mailsec("db", "check", "-d", database)[0] == 0
    assert len(answer(mailsec("cert", "list", "-d", database, "--json"))["certificates"]) == 30
    code, out, _ = mailsec("cert", "import", "many.pem", "-d", database)
    assert "and 10 others" in out


# -- p12 --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def p12(mailsec, folder) -> str:
    """A PKCS#12 file with Bob's key and its CA, made by another hand."""
    from mailsec.store.certdb import CertDb

    mailsec("db", "init", "-d", "source.db", "--no-password")
    mailsec("cert", "issue", "-d", "source.db", "--new-ca", "Partner CA", "--for", "any", "--key", "ec-p256")
    mailsec("cert", "issue", "-d", "source.db", "--address", "bob@example.net", "--key", "ec-p256")
    with CertDb.open("source.db") as source:
        entry = source.find("bob@example.net")[0]
        data = pkcs12.serialize_key_and_certificates(
            b"Bob\x1b[31m's\nkey:1",
            serialization.load_der_private_key(source.private_key(entry), None),
            x509.load_der_x509_certificate(entry.der),
            [x509.load_der_x509_certificate(source.find("Partner CA")[0].der)],
            serialization.BestAvailableEncryption("pässword".encode()),
        )
    (folder / "bob.p12").write_bytes(data)
    return "bob.p12"


def test_p12_list_and_import(mailsec, database, p12):
    contents = answer(mailsec("p12", "list", p12, "--p12-password-file", "password", "--json"))["contents"]
    assert [(each["key"], each["addresses"]) for each in contents] == [(True, ["bob@example.net"]), (False, [])]
    code, out, _ = mailsec("p12", "list", p12, "--p12-password-file", "password")
    assert code == 0 and "\x1b" not in out
    code, out, err = mailsec("p12", "import", p12, "--p12-password-file", "password", "-d", database)
    assert code == 0 and "with its key" in out, err
    listed = answer(mailsec("cert", "list", "-d", database, "--json"))["certificates"]
    assert [(each["nickname"], each["has_key"], each["trust"]) for each in listed] == [
        ("Bob [31m's key 1", True, "u,u,u"),
        ("Partner CA", False, ",,"),
    ]
    assert mailsec("p12", "import", p12, "--p12-password-file", "password", "-d", database)[0] == 0
    assert len(answer(mailsec("cert", "list", "-d", database, "--json"))["certificates"]) == 2


def test_a_p12_with_a_wrong_password_or_none_is_said_so(mailsec, database, p12):
    code, _, err = mailsec("p12", "import", p12, "--p12-password-file", "other", "-d", database)
    assert code == 3 and "another pass phrase" in err and "hint: it is the one that the file was exported with" in err
    code, _, err = mailsec("p12", "import", p12, "-d", database)
    assert code == 3 and "--p12-password-file" in err
    code, _, err = mailsec("p12", "list", "password", "--p12-password-file", "password")
    assert code == 3 and "not a PKCS#12 file" in err
    assert "no certificate yet" in mailsec("cert", "list", "-d", database)[1]


def test_a_p12_with_a_thousand_million_iterations_is_refused_at_once(mailsec, p12, folder):
    data = (folder / p12).read_bytes()
    place = data.rfind(b"\x02\x02")
    assert int.from_bytes(data[place + 2 :], "big") >= 2048, "MacData ends with its iterations"
    huge = bytearray(data)
    huge[place:] = b"\x02\x04\x3b\x9a\xca\x00"
    huge = _grown(bytes(huge), len(huge) - len(data))
    (folder / "huge.p12").write_bytes(huge)
    code, _, err = mailsec("p12", "list", "huge.p12", "--p12-password-file", "password")
    assert code in (1, 3) and "iterations" in err


def _grown(data: bytes, by: int) -> bytes:
    """The lengths of PFX and of MacData, `by` more."""
    size = int.from_bytes(data[2:4], "big")
    data = data[:2] + (size + by).to_bytes(2, "big") + data[4:]
    mac = len(data) - by - 2 - _mac_content(data, by)
    return data[: mac + 1] + bytes([data[mac + 1] + by]) + data[mac + 2 :]


def _mac_content(data: bytes, by: int) -> int:
    # the MacData is the last element: its short length reaches exactly the old end
    for content in range(1, 127):
        at = len(data) - by - 2 - content
        if data[at] == 0x30 and data[at + 1] == content and data[at + 2] == 0x30:
            return content
    raise AssertionError("no MacData")


# -- user -------------------------------------------------------------------------------------------------------------------------


def test_users_are_added_listed_changed_and_removed(mailsec, database):
    code, out, _ = mailsec("user", "add", "alice@example.org", "--password-file", "password", "-d", database)
    assert code == 0 and "may send as alice@example.org" in out
    more = ("--address", "bob@example.org", "--address", "@sales.example.org")
    assert mailsec("user", "add", "bob", *more, "--password-file", "password", "-d", database)[0] == 0
    users = answer(mailsec("user", "list", "-d", database, "--json"))["users"]
    assert [(user["login"], user["addresses"]) for user in users] == [
        ("alice@example.org", ["alice@example.org"]),
        ("bob", ["bob@example.org", "@sales.example.org"]),
    ]
    assert mailsec("user", "password", "bob", "--disable", "-d", database)[0] == 0
    assert "disabled" in mailsec("user", "list", "-d", database)[1]
    assert mailsec("user", "password", "bob", "--enable", "-d", database)[0] == 0
    assert mailsec("user", "password", "bob", "--password-file", "other", "-d", database)[0] == 0
    from mailsec.store.certdb import CertDb

    with CertDb.open(database) as opened:
        assert opened.check_password("bob", b"other") and opened.check_password("alice@example.org", "pässword".encode())
    assert mailsec("user", "remove", "bob", "-d", database)[0] == 0
    assert len(answer(mailsec("user", "list", "-d", database, "--json"))["users"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", "bob", "--password-file", "password"), 2, "--address"),
        (("add", "bob@example.org"), 2, "--password-file"),
        (("add", "bob@example.org", "--password-file", "absent"), 3, "absent"),
        (("add", "bob@example.org", "--address", "x", "--password-file", "password"), 2, "pattern"),
        (("remove", "bob"), 1, "user list"),
        (("password", "bob", "--password-file", "password"), 1, "no user"),
        (("password", "bob"), 1, "no user"),
        (("password", "bob", "--disable", "--enable"), 2, "exclude"),
        (("add", "bob", "--password-file", "-", "--passphrase-file", "-"), 2, "standard input"),
        (("ad",), 2, "did you mean"),
    ],
)
def test_a_mistake_about_users_is_one_sentence_with_a_hint(mailsec, database, arguments, code, words):
    got, out, err = mailsec("user", *arguments, *(("-d", database) if len(arguments) > 1 else ()))
    assert got == code and words in err and not out


def test_a_password_is_never_an_argument(mailsec, database):
    code, _, err = mailsec("user", "add", "bob@example.org", "--password", "secret", "-d", database)
    assert code == 2 and "secret" not in err


def test_keys_go_out_in_one_pkcs12_file_with_old_ones_and_come_back(mailsec, folder, database, ca):
    for number in range(2):  # renewed: both have one nickname
        arguments = ("--address", "alice@example.org", "--key", "ec-p256", "--nickname", "alice")
        assert mailsec("cert", "issue", "-d", database, *arguments)[0] == 0, number
    mailsec("cert", "issue", "-d", database, "--address", "bob@example.org", "--key", "ec-p256")
    arguments = ("alice", "bob@example.org", "-d", database, "-o", "x.p12", "--p12-password-file", "password")
    told = answer(mailsec("p12", "export", *arguments, "--json"))
    assert (told["keys"], told["certificates"]) == (3, 3)
    assert Path("x.p12").stat().st_mode & 0o777 == 0o600
    code, _, err = mailsec("p12", "export", *arguments)
    assert code == 1 and "exists already" in err
    mailsec("db", "init", "--no-password", "-d", "y.db")
    entries = answer(mailsec("p12", "import", "x.p12", "--p12-password-file", "password", "-d", "y.db", "--json"))["certificates"]
    assert sorted(entry["nickname"] for entry in entries if entry["has_key"]) == ["alice", "alice", "bob@example.org"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nobody", "-o", "y.p12"), 1, "no certificate"),
        (("leaf", "-o", "y.p12"), 1, "private key"),
        (("My CA", "-o", "absent/y.p12"), 1, "absent/y.p12"),
        (("My CA", "-o", "y.p12", "--p12-password-file", "empty"), 2, "pass phrase"),
        (("My CA",), 2, "--output"),
    ],
)
def test_a_wrong_export_of_keys_is_one_sentence_and_writes_nothing(mailsec, folder, database, ca, arguments, code, words):
    (folder / "empty").write_text("\n")
    mailsec("cert", "issue", "-d", database, "--address", "leaf@example.org", "--nickname", "leaf", "--key", "ec-p256", "-o", "leaf.pem")
    mailsec("key", "delete", "leaf", "--yes", "-d", database)
    password = () if "empty" in arguments else ("--p12-password-file", "password")
    got, _, err = mailsec("p12", "export", *arguments, *password, "-d", database)
    assert got == code and words in err and not Path("y.p12").exists()
