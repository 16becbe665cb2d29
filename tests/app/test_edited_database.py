"""What the command line says of a database that somebody edited with SQLite's own tool, without knowing its data key."""

from __future__ import annotations

import sqlite3

import pytest


@pytest.fixture
def filled(mailsec, database) -> str:
    for arguments in (
        ("cert", "issue", "--new-ca", "CA", "--for", "example.org", "--key", "ec-p256"),
        ("cert", "issue", "--address", "alice@example.org", "--key", "ec-p256"),
        ("user", "add", "alice@example.org", "--password-file", "password"),
        ("partner", "set", "@example.net", "encrypt=required"),
        ("module", "add", "m", "/usr/lib/m.so", "--no-check"),
        ("key", "assign", "alice@example.org", "sales@example.org"),
        ("cert", "revoke", "alice@example.org"),
    ):
        code, _, err = mailsec(*arguments, "-d", database)
        assert code == 0, err
    return database


# (what somebody does, a command, its exit code, what it says)
ATTACKS = [
    ("DELETE FROM users", ("user", "list"), 0, "table users has 0 rows where mailsec wrote 1"),
    ("UPDATE users SET addresses = '[\"*\"]'", ("user", "list"), 0, "NOT VERIFIED: cannot log in"),
    ("DELETE FROM modules", ("module", "list"), 0, "table modules has 0 rows where mailsec wrote 1"),
    ("UPDATE modules SET library = '/tmp/evil.so'", ("module", "list"), 0, "not verified"),
    ("DELETE FROM partner_settings", ("partner", "list"), 1, "table partner_settings has 0 rows"),
    ("UPDATE partner_settings SET value = 'never'", ("partner", "show", "bob@example.net"), 1, "was changed by something else"),
    ("UPDATE assignments SET pattern = '*'", ("key", "list"), 0, "NOT VERIFIED"),
    ("DELETE FROM assignments", ("key", "assign", "CA", "x@example.org"), 1, "table assignments has 0 rows"),
    ("DELETE FROM certificates WHERE nickname LIKE 'alice%'", ("crl", "issue"), 1, "there is no CA whose key is here"),
    ("UPDATE private_keys SET key_type = 'rsa'", ("cert", "issue", "--address", "bob@example.org"), 1, "there is no CA whose key is here"),
    ("UPDATE issued SET revoked_at = NULL", ("crl", "issue"), 1, "register of issued certificates was changed"),
    ("DELETE FROM issued", ("crl", "issue"), 1, "table issued has 0 rows"),
    ("DELETE FROM certificate_addresses", ("cert", "find", "alice@example.org"), 1, "table certificate_addresses has 0 rows"),
]


@pytest.mark.parametrize(("attack", "command", "code", "said"), ATTACKS)
def test_attack_rows_edited_or_deleted_are_said_so_and_decide_nothing(mailsec, filled, attack, command, code, said):
    with sqlite3.connect(filled) as attacker:
        attacker.execute(attack)
    attacker.close()
    done, out, err = mailsec(*command, "-d", filled)
    assert done == code and said in out + err, (done, out, err)
    done, out, _ = mailsec("db", "check", "-d", filled)
    assert done == 1 and attack.split()[1 if attack.startswith("U") else 2] in out


def test_attack_an_edited_backup_is_not_put_in_place(mailsec, filled):
    assert mailsec("db", "backup", "copy.db", "-d", filled)[0] == 0
    with sqlite3.connect("copy.db") as attacker:
        attacker.execute("UPDATE certificates SET domains = '[\"*\"]'")
    attacker.close()
    code, _, err = mailsec("db", "restore", "copy.db", "-d", "new.db")
    assert code == 1 and "is not whole" in err
    assert mailsec("db", "check", "-d", "new.db")[0] != 0
