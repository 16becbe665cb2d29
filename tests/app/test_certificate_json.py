"""`docs/json.md` is what the commands about databases, certificates and keys print, field by field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()
COMMANDS = [
    ("db init", ("-d", "y.db", "--no-password")),
    ("db check", ()),
    ("db upgrade", ()),
    ("db backup", ("x.bak",)),
    ("db restore", ("x.bak", "--replace")),
    ("db merge", ("y.db",)),
    ("db password", ("--no-password",)),
    ("cert list", ()),
    ("cert issue", ("--address", "alice@example.org", "--key", "ec-p256", "-o", "alice.pem")),
    ("cert show", ("alice@example.org",)),
    ("cert import", ("alice.pem",)),
    ("cert trust", ("alice@example.org", ",P,")),
    ("cert export", ("alice@example.org",)),
    ("cert request", ("--address", "a@example.org", "--key", "ec-p256")),
    ("cert find", ("alice@example.org",)),
    ("cert learnt", ("pin", "alice@example.org")),
    ("cert revoke", ("alice@example.org",)),
    ("crl issue", ("-o", "x.crl")),
    ("crl list", ()),
    ("crl delete", ("1",)),
    ("key list", ()),
    ("key assign", ("alice@example.org", "@example.org")),
    ("p12 export", ("alice@example.org", "-o", "x.p12", "--p12-password-file", "password")),
    ("p12 list", ("x.p12", "--p12-password-file", "password")),
    ("cert rename", ("alice@example.org", "alice")),
    ("cert delete", ("alice", "--yes")),
]
SAME = {"cert show": "cert list", "cert import": "cert list", "cert trust": "cert list", "cert issue": "cert list", "crl issue": "crl list",
        "key assign": "key list"}  # fmt: skip
"""Whose section tells what others print."""


def section(command: str) -> str:
    return re.search(rf"^## {re.escape(command)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE).group(1)


def names_in(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, list) else set()


def test_every_field_that_is_printed_is_on_the_page_and_the_other_way_round(mailsec, database, folder):
    mailsec("cert", "issue", "-d", database, "--new-ca", "My CA", "--for", "example.org", "--key", "ec-p256")
    for command, arguments in COMMANDS:
        where = () if "-d" in arguments or command == "p12 list" else ("-d", database)
        code, out, err = mailsec(*command.split(), *arguments, *where, "--json")
        assert code in (0, 1) and json.loads(out)["error"] is None, (command, err)
        value = json.loads(out)
        text = section(SAME.get(command, command))
        mentioned = set(re.findall(r"[`\"]([a-z0-9_]+)[`\"]", text))
        heads = {
            name for line in text.splitlines() if line.startswith("- ") for name in re.findall(r"`([a-z0-9_]+)`", line.partition(":")[0])
        }
        assert set(value) - {"error"} <= mentioned, command
        assert heads <= set(value) or command in SAME, command
        everywhere = set(re.findall(r"[`\"]([a-z0-9_]+)[`\"]", PAGE))
        assert names_in(value) <= everywhere, command


@pytest.mark.parametrize("arguments", [("cert", "list"), ("key", "list"), ("db", "check")])
def test_an_error_is_one_object_too(mailsec, folder, arguments):
    code, out, _ = mailsec(*arguments, "-d", "absent.db", "--json")
    assert code == 1 and set(json.loads(out)["error"]) == {"class", "stage", "message", "hint"}
