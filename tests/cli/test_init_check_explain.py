"""From an empty directory to a gateway that would run: init, check, explain; every mistake around a configuration at once."""

from __future__ import annotations

import io
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailsec.app import cli
from mailsec.app.output import Output
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of


def run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return cli.run(arguments, Output(out, err)), out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A directory as `mailsec init` leaves it, with a user and their certificate."""
    folder = tmp_path_factory.mktemp("init") / "gateway"
    code, _out, err = run("init", str(folder), "--hostname", "gw.example.org", "--domain", "example.org")
    assert code == 0, err
    passphrase = (folder / "passphrase").read_text().strip().partition(":")[2]
    at = datetime.now(UTC)
    with CertDb.open(str(folder / "mailsec.db"), password=passphrase.encode()) as database:
        ca_key, key = make_key("ec-p256"), make_key("ec-p256")
        ca = make_ca(common_name="CA", key=ca_key, at=at, random=os.urandom)
        certificate = issue_mail(
            IssuedBy(ca, ca_key), addresses=[Address.parse("a@example.org")], public_key=public_key_of(key), at=at, random=os.urandom
        )
        database.add(ca, "Mail-CA", trust=TrustFlags.parse(",C,"), domains=["example.org"], at=at)
        database.add(certificate, "alice", private_key=key, at=at)
        database.add_user("alice", b"a password of hers", ["a@example.org"], at=at)
    return folder


@pytest.fixture
def gateway(made, tmp_path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(made, tmp_path / "g")
    return tmp_path / "g"


def test_what_init_writes_is_fine_and_private(made):
    code, out, err = run("check", "--json", "-c", str(made / "mailsec.toml"))
    assert code == 0, err
    assert json.loads(out)["valid"] is True
    for name in (".", "mailsec.db", "passphrase", "spool", "run"):
        assert (made / name).stat().st_mode & 0o077 == 0, name


def test_init_changes_nothing_that_is_there(made):
    before = {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}
    code, _out, err = run("init", str(made))
    assert code == 1 and "exists already" in err
    assert {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()} == before


def test_init_refuses_names_that_are_none(tmp_path):
    for arguments in (("--hostname", "a b"), ("--domain", "*"), ("--next-hop", "mail")):
        code, _out, err = run("init", str(tmp_path / "x"), *arguments)
        assert code == 2 and err.startswith("mailsec: error: "), err
        assert not (tmp_path / "x").exists()


def test_init_without_a_place_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    code, _out, err = run("init", str(tmp_path / "file" / "x"), "--domain", "example.org")
    assert code == 1 and "cannot make" in err and "Traceback" not in err


def test_check_tells_every_mistake_around_the_file_at_once(gateway, tmp_path):
    configuration = gateway / "mailsec.toml"
    text = configuration.read_text()
    text = text.replace('certificate = "Server-Cert"', 'certificate = "Server-Cret"', 1)
    text = text.replace('certificate = "Server-Cert"', 'certificate = "Mail-CA"', 1)
    text = text.replace("# anchor_files = []", f'anchor_files = ["{tmp_path}/none.pem", "mailsec.toml"]')
    text = text.replace('# directory = "spool"', 'directory = "passphrase"')
    text = text.replace('name = "everybody"', 'name = "everybody"\nsigner = "alcie"')
    text = text.replace("# enabled = []", 'enabled = ["no-such-plugin", "nor-this-one"]')
    text = text.replace(
        'next_hop = "smtp://[127.0.0.1]:10026"',
        'next_hop = { to = "smtp://relay.example.net", tls = "verified", username = "u", password_file = "pw" }',
    )
    configuration.write_text(text)
    (gateway / "passphrase").chmod(0o644)
    code, out, err = run("check", "--json", "-c", str(configuration))
    assert code == 78
    messages = [error["message"].partition(": ")[2] for error in json.loads(out)["errors"]]
    expected = [
        'there is no certificate "Server-Cret"',
        'there is no private key for "Mail-CA"',
        "others may read the secret",
        "none.pem: no such file",
        "mailsec.toml: holds no certificate",
        '"alcie" is not in the database',
        "pw: no such file",
        "passphrase is no directory",
        "no plugin is called no-such-plugin",
        "no plugin is called nor-this-one",
    ]
    for words in expected:
        assert any(words in message for message in messages), (words, messages)
    assert len(messages) == len(expected)
    assert 'did you mean "Server-Cert"?' in err and 'did you mean "alice"?' in err


@pytest.mark.parametrize(
    ("before", "after", "words", "hint"),
    [
        ("# path = []", 'path = ["absent"]', "plugins cannot be looked for in", "see [plugins] path"),
        (
            '# order = ["ocsp", "crl"]',
            'order = ["ocspp"]',
            'no enabled plugin brings a source called "ocspp"',
            '"ocsp" and "crl" are built in',
        ),
        ('# order = ["ocsp", "crl"]', 'order = ["crl", "ldap"]', 'a source called "ldap"', "name their plugin in [plugins] enabled"),
    ],
)
def test_check_tells_what_no_plugin_brings(gateway, before, after, words, hint):
    configuration = gateway / "mailsec.toml"
    text = configuration.read_text()
    assert before in text
    configuration.write_text(text.replace(before, after))
    code, _out, err = run("check", "-c", str(configuration))
    assert code == 78 and words in err and hint in err and "1 error" in err


def test_check_with_another_pass_phrase(gateway):
    (gateway / "passphrase").write_text("internal:something else\n")
    code, _out, err = run("check", "-c", str(gateway / "mailsec.toml"))
    assert code == 78 and "passphrase.file" in err


def test_check_without_a_database_says_how_to_make_one(gateway):
    (gateway / "mailsec.db").unlink()
    code, _out, err = run("check", "-c", str(gateway / "mailsec.toml"))
    assert code == 78 and "there is no database" in err and "mailsec db init" in err


def test_check_binds_and_makes_nothing(gateway):
    shutil.rmtree(gateway / "spool")
    shutil.rmtree(gateway / "run")
    assert run("check", "-c", str(gateway / "mailsec.toml"))[0] == 0
    assert not (gateway / "spool").exists() and not (gateway / "run").exists()


def test_check_of_a_systemd_credential(gateway, tmp_path, monkeypatch):
    configuration = gateway / "mailsec.toml"
    configuration.write_text(configuration.read_text().replace('method = "file"', 'method = "systemd"').replace('file = "passphrase"', ""))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    code, _out, err = run("check", "-c", str(configuration))
    assert code == 78 and "LoadCredential=mailsec-passphrase" in err
    shutil.copy(gateway / "passphrase", tmp_path / "mailsec-passphrase")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert run("check", "-c", str(configuration))[0] == 0


# -- explain ----------------------------------------------------------------------------------------------------------------------


def explain(gateway: Path, sender: str, *arguments: str, header: str = "") -> tuple[int, dict]:
    file = gateway / "message.eml"
    file.write_text(f"{header}From: {sender}\nTo: b@example.net\nSubject: secret subject\n\nHello.\n")
    code, out, err = run("explain", "--json", "-c", str(gateway / "mailsec.toml"), str(file), *arguments)
    return code, json.loads(out) if out else {"err": err}


def test_explain_says_which_rule_signs_with_which_key(gateway):
    code, value = explain(gateway, "a@example.org", "--origin", "submission")
    assert code == 0 and value["user"] == "alice"
    plan = next(step for step in value["steps"] if step["name"] == "plan")
    assert "alice" in plan["text"] and plan["rule"] == "everybody"
    assert value["outcomes"][0]["action"] == "deliver"


def test_explain_refuses_what_the_gateway_would_refuse(gateway):
    code, value = explain(gateway, "somebody@example.org", "--origin", "submission", "--from", "a@example.org")
    assert code == 1
    assert value["outcomes"][0]["action"] == "refuse" and value["outcomes"][0]["reply"].startswith("550 5.7.1")
    code, value = explain(gateway, "x@elsewhere.example", "--origin", "internet")
    assert code == 1 and value["recipients"][0]["refused"] == "550 5.7.1 relaying denied"


def test_explain_verifies_what_comes_from_outside(gateway):
    code, value = explain(gateway, "x@elsewhere.example", "--origin", "internet", "--to", "b@example.org")
    assert code == 0 and value["outcomes"][0]["verdict"]["result"] == "none"


def test_explain_stores_nothing(gateway):
    explain(gateway, "a@example.org", "--origin", "submission")
    assert list((gateway / "spool").iterdir()) == []


def test_explain_asks_for_what_it_needs(gateway):
    code, value = explain(gateway, "a@example.org")
    assert code == 2 and "--origin" in value["err"]
    code, value = explain(gateway, "a@example.org", "--origin", "submission", "--user", "nobody")
    assert code == 2 and "mailsec user list" in value["err"]
