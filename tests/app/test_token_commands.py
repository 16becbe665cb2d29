"""`mailsec module` and `mailsec token` as a person uses them, with wrong input too; OpenSC's pkcs11-tool on the same token."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailsec.app.commands.init import set_up_database
from mailsec.app.config.render import render
from mailsec.tokens.p11kit import known_modules
from tests.peers.gateway import PROJECT
from tests.peers.softhsm import SO_PIN, SoftHsm


@pytest.fixture(scope="module")
def hsm(tmp_path_factory):
    made = SoftHsm(tmp_path_factory.mktemp("commands"))
    made.add("HSM 1", "12 34")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture
def given(mailsec, hsm: SoftHsm, folder: Path, monkeypatch):
    """The same with the library named, state and PIN files at hand."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state-home"))
    for name, text in {"pin": "12 34\n", "wrong": "12\n", "new": "98 76\n", "so": SO_PIN + "\n"}.items():
        (folder / name).write_text(text)
    return lambda *arguments: mailsec("token", *arguments, "--library", hsm.library)


def test_tokens_are_listed_without_a_login(given):
    code, out, err = given("list", "--json")
    rows = {row["token"]: row for row in json.loads(out)["tokens"]}
    assert code == 0 and not err
    assert rows["HSM 1"]["login_required"] and not rows["HSM 1"]["logged_in"] and rows["HSM 1"]["serial"]
    page = (PROJECT / "docs/json.md").read_text()
    section = page[page.index("## token list") : page.index("## token selftest")]
    assert set(rows["HSM 1"]) == set(re.findall(r'"([a-z_]+)"', section))
    code, out, _ = given("list")
    assert code == 0 and "HSM 1" in out and "not logged in" in out and "blank" in out


def test_a_token_is_made_its_pin_changed_and_its_keys_tried(given, hsm: SoftHsm):
    code, out, err = given("init", "made here", "--so-pin-file", "so", "--pin-file", "pin", "--json")
    assert code == 0, err
    assert json.loads(out)["serial"]
    assert given("init", "made here", "--so-pin-file", "so", "--pin-file", "pin")[0] == 2
    assert given("pin", "made here", "--pin-file", "pin", "--new-pin-file", "new")[0] == 0
    code, _, err = given("selftest", "made here", "--pin-file", "new")
    assert code == 1 and "has no private key" in err
    for kind in ("rsa:2048", "EC:prime256v1"):
        hsm.tool(
            "--token-label",
            "made here",
            "--login",
            "--pin",
            "98 76",
            "--keypairgen",
            "--key-type",
            kind,
            "--id",
            kind[:2].encode().hex(),
            "--label",
            kind,
        )
    code, out, err = given("selftest", "made here", "--pin-file", "new", "--json")
    value = json.loads(out)
    assert code == 0 and value["good"], (value, err)
    good = {(row["key"], row["operation"]) for row in value["operations"] if row["good"]}
    assert {
        ("rsa:2048", "rsassa-pss sha256"),
        ("rsa:2048", "rsaes-pkcs1-v1_5"),
        ("EC:prime256v1", "ecdsa sha256"),
        ("EC:prime256v1", "ecdh"),
    } <= good
    assert {row["operation"] for row in value["operations"] if row["good"] is None} == {"rsaes-oaep sha256"}


def test_pkcs11_tool_sees_what_we_put_there(given, hsm: SoftHsm, tmp_path):
    from mailsec.tokens.module import Module
    from mailsec.tokens.state import StateDirectory

    with Module("soft", hsm.library, state=StateDirectory(tmp_path / "state")) as module:
        module.login("HSM 1", b"12 34")
        key = module.generate_key("HSM 1", "rsa-2048", "seen by OpenSC")
    shown = hsm.tool("--token-label", "HSM 1", "--login", "--pin", "12 34", "--list-objects")
    assert f"ID:         {key.id.hex()}" in shown and "seen by OpenSC" in shown and "never extractable" in shown


def test_a_wrong_pin_is_tried_once_and_a_right_one_lifts_the_mark(given):
    code, _, err = given("login", "HSM 1", "--pin-file", "wrong")
    assert code == 1 and "refuses the PIN" in err and 'mailsec token login "HSM 1"' in err
    code, _, err = given("selftest", "HSM 1", "--pin-file", "pin")
    assert code == 1 and "an earlier login failed" in err
    code, out, _ = given("list")
    assert "an earlier login failed" in out and "mailsec token login" in out
    code, out, _ = given("login", "HSM 1", "--pin-file", "pin")
    assert code == 0 and "the PIN is right" in out
    assert "an earlier login" not in given("list")[1]


def test_a_new_pin_that_the_token_does_not_take_leaves_no_mark_and_none_is_lifted_by_it(given, folder):
    (folder / "short").write_text("1\n")
    change = ("pin", "HSM 1", "--pin-file", "pin", "--new-pin-file", "short")

    def marked() -> bool:
        return next(row for row in json.loads(given("list", "--json")[1])["tokens"] if row["token"] == "HSM 1")["marked"]

    code, _, err = given(*change)
    assert code == 1 and "CKR_PIN_LEN_RANGE" in err and not marked()
    assert given("login", "HSM 1", "--pin-file", "wrong")[0] == 1 and marked()
    assert given(*change)[0] == 1 and marked()
    assert given("login", "HSM 1", "--pin-file", "pin")[0] == 0 and not marked()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("login", "HSM", "--pin-file", "pin"), 75, "has no token 'HSM'"),
        (("login", "HSM 1"), 2, "--pin-file"),
        (("mechanisms", "HSM 100"), 75, "it shows"),
        (("init", " blank", "--so-pin-file", "so", "--pin-file", "pin"), 2, "not a name"),
        (("init", "x", "--so-pin-file", "-", "--pin-file", "-"), 2, "standard input"),
        (("pin", "HSM 1", "--pin-file", "wrong", "--new-pin-file", "new"), 1, "keeps its PIN"),
    ],
)
def test_wrong_calls_get_one_sentence_and_a_hint(given, arguments, code: int, said: str):
    done, _, err = given(*arguments)
    given("login", "HSM 1", "--pin-file", "pin")
    assert said in err and done in (code, 1), err


def test_a_library_that_is_none(mailsec, folder: Path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    (folder / "x.so").write_text("text")
    code, _, err = mailsec("token", "mechanisms", "x", "--library", str(folder / "x.so"))
    assert code == 78 and "cannot be loaded" in err
    code, _, err = mailsec("token", "list", "--library", "absent.so")
    assert code == 0 and "there is no PKCS#11 library" in err
    code, _, err = mailsec("token", "list")
    assert code == 2 and "--library" in err


def test_modules_of_the_database(mailsec, database: str, hsm: SoftHsm):
    d = ("-d", database)
    code, out, err = mailsec("module", "add", "soft", hsm.library, *d)
    assert code == 0 and "SoftHSM" in out and "HSM 1" in out, err
    assert mailsec("module", "add", "soft", hsm.library, *d)[0] == 2
    assert mailsec("module", "add", "../x", hsm.library, *d)[0] == 2
    assert mailsec("module", "add", "other", "/absent.so", *d)[0] == 78
    assert mailsec("module", "add", "unknown to p11-kit", *d)[0] == 2
    assert mailsec("module", "add", "other", hsm.library, "--no-check", *d)[0] == 0
    assert mailsec("module", "disable", "other", *d)[0] == 0
    assert mailsec("module", "default", "soft", "rsa", "ec", *d)[0] == 0
    assert mailsec("module", "default", "other", "ec", *d)[0] == 0
    assert mailsec("module", "default", "other", "nonsense", *d)[0] == 2
    rows = {row["name"]: row for row in json.loads(mailsec("module", "list", "--json", *d)[1])["modules"]}
    assert (rows["soft"]["state"], rows["soft"]["defaults"]) == ("in use", ["rsa"])
    assert (rows["other"]["state"], rows["other"]["defaults"]) == ("disabled", ["ec"])
    assert mailsec("module", "enable", "other", *d)[0] == 0
    assert mailsec("module", "remove", "other", *d)[0] == 0
    assert mailsec("module", "remove", "other", *d)[0] == 1


def test_attack_a_module_that_somebody_else_wrote_is_not_loaded(folder: Path, hsm: SoftHsm):
    import sqlite3

    from mailsec.app.modules import modules_in_use
    from mailsec.store.certdb import CertDb
    from mailsec.store.modules import Modules

    with CertDb.create("x.db", b"password", at=datetime.now(UTC)) as database:
        Modules(database).add("soft", hsm.library)
    with CertDb.open("x.db", password=b"password") as database:
        assert [module.library for module in modules_in_use((), database)] == [hsm.library]
    with sqlite3.connect("x.db") as edited:
        edited.execute("UPDATE modules SET library = '/tmp/evil.so'")
    with CertDb.open("x.db", password=b"password") as database:
        assert modules_in_use((), database) == ()


def test_the_configuration_wins_by_name_and_is_never_rewritten(mailsec, folder: Path, monkeypatch):
    hsm = SoftHsm(folder / "own")
    hsm.add("HSM 1", "12 34")
    monkeypatch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
    set_up_database(folder, "gw.example.org", ["example.org"])
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"]},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "module": [{"name": "soft", "library": hsm.library}],
        "passphrase": {"method": "file", "file": "passphrase"},
        "relay": {"next_hop": "smtp://[127.0.0.1]:26"},
    }
    Path("mailsec.toml").write_text(render(values))
    before = Path("mailsec.toml").read_text()
    code, _, err = mailsec("module", "add", "soft", hsm.library, "-c", "mailsec.toml")
    assert code == 78 and "stands in the configuration" in err
    assert mailsec("module", "remove", "soft", "-c", "mailsec.toml")[0] == 78
    rows = json.loads(mailsec("module", "list", "--json", "-c", "mailsec.toml")[1])["modules"]
    assert [row["from"] for row in rows if row["name"] == "soft"] == ["configuration"]
    assert Path("mailsec.toml").read_text() == before
    # Where a module is the default, keys are made there or not at all.
    Path("pin").write_text("12 34\n")
    assert mailsec("module", "add", "other", hsm.library, "-c", "mailsec.toml")[0] == 0
    assert mailsec("module", "default", "other", "ec", "-c", "mailsec.toml")[0] == 0
    code, out, err = mailsec("key", "generate", "--key", "ec-p256", "--label", "new", "--pin-file", "pin", "--json", "-c", "mailsec.toml")
    assert code == 0 and json.loads(out)["keys"][0]["token"] == "HSM 1", err
    assert mailsec("key", "generate", "--key", "ec-p256", "-c", "mailsec.toml")[0] == 2
    code, out, _ = mailsec("key", "generate", "--key", "rsa-2048", "--json", "-c", "mailsec.toml")
    assert code == 0 and "key_id" in json.loads(out)["keys"][0]
    code, out, _ = mailsec("key", "generate", "--token", "HSM 1", "--key", "rsa-2048", "--pin-file", "pin", "--json", "-c", "mailsec.toml")
    assert code == 2 and mailsec("module", "remove", "other", "-c", "mailsec.toml")[0] == 0
    code, out, err = mailsec(
        "key", "generate", "--token", "HSM 1", "--key", "rsa-2048", "--pin-file", "pin", "--json", "-c", "mailsec.toml"
    )
    assert code == 0 and json.loads(out)["keys"][0]["key_type"] == "rsa", err
    # `check` gives no PIN to anybody unless it is told to.
    assert mailsec("check", "-c", "mailsec.toml")[0] == 0
    code, _, err = mailsec("check", "--login", "-c", "mailsec.toml")
    assert code == 0 and 'has no line "HSM 1:…"' in err
    with Path("passphrase").open("a") as file:
        file.write("HSM 1:no\n")
    assert "refuses the PIN" in mailsec("check", "--login", "-c", "mailsec.toml")[2]
    code, _, err = mailsec("check", "-c", "mailsec.toml")
    assert code == 0 and "'HSM 1' is out of service: an earlier login failed (CKR_PIN_INCORRECT)" in err


def test_modules_that_the_system_knows(tmp_path):
    system, own = tmp_path / "system", tmp_path / "own"
    for directory in (system, own):
        directory.mkdir()
    (system / "a.module").write_text("# a comment\nmodule: /lib/a.so\n")
    (system / "b.module").write_text("module: /lib/b.so\nx-init-reserved: configdir='sql:/d'\n")
    (system / "c.module").write_text("module: /lib/c.so\ndisable-in: mailsec, other\n")
    (system / "d.module").write_text("module: /lib/d.so\nenable-in: firefox\n")
    (system / "e.module").write_text("module: /lib/e.so\ntrust-policy: yes\n")
    (system / "f.module").write_text("nothing: here\n")
    (own / "a.module").write_text("module: /lib/own.so\n")
    found = {one.name: one for one in known_modules([str(system), str(own), str(tmp_path / "absent")])}
    assert sorted(found) == ["a", "b", "e"]
    assert found["a"].library == "/lib/own.so" and found["b"].parameters == "configdir='sql:/d'" and found["e"].trust
