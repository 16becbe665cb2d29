"""Certificates and keys put on a token by command: what certutil -A -h and pk12util -i -h do; OpenSC's pkcs11-tool looks at the result."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from mailsec.keys.files import Pkcs12Key, pem
from mailsec.keys.pkcs12_writer import write_pkcs12
from mailsec.testing.authority import Authority
from mailsec.x509.issue import make_key, public_key_of
from tests.peers.gateway import PROJECT
from tests.peers.softhsm import SoftHsm


@pytest.fixture(scope="module")
def hsm(tmp_path_factory):
    made = SoftHsm(tmp_path_factory.mktemp("put"))
    made.add("HSM 1", "12 34")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture
def on(mailsec, hsm: SoftHsm, folder: Path, monkeypatch):
    """on("cert", "import", …): the command with the token, its library and PIN."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state-home"))
    (folder / "pin").write_text("12 34\n")
    return lambda *arguments: mailsec(*arguments, "--token", "HSM 1", "--library", hsm.library, "--pin-file", "pin")


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err + out
    return json.loads(out)


def objects(hsm: SoftHsm, kind: str) -> dict[str, str]:
    """Label to id of the objects of a kind, as pkcs11-tool lists them."""
    text = hsm.tool("--token-label", "HSM 1", "--login", "--pin", "12 34", "--list-objects", "--type", kind)
    return dict(re.findall(r"label:\s+(.+?)\n(?:.*\n)*?\s+ID:\s+([0-9a-f]+)", text))


def test_a_bare_certificate_gets_the_id_of_the_key_that_is_there(on, mailsec, hsm, database, folder):
    there = ("--token-label", "HSM 1", "--login", "--pin", "12 34", "--keypairgen", "--key-type", "EC:prime256v1")
    hsm.tool(*there, "--id", "77", "--label", "made by a card tool")
    request = ("cert", "request", "--address", "alice@example.org", "--with", "HSM 1:made by a card tool", "-o", "alice.csr")
    assert mailsec(*request, "--library", hsm.library, "--pin-file", "pin")[0] == 0
    assert mailsec("cert", "issue", "-d", database, "--new-ca", "Outside", "--for", "any", "--key", "ec-p256")[0] == 0
    assert mailsec("cert", "issue", "-d", database, "--request", "alice.csr", "-o", "alice.pem")[0] == 0
    told = answer(on("cert", "import", "alice.pem", "--nickname", "alice 2026", "--json"))
    assert told["token"] == "HSM 1"
    assert [(one["nickname"], one["id"], one["has_key"], one["new"]) for one in told["certificates"]] == [("alice 2026", "77", True, True)]
    assert objects(hsm, "cert")["alice 2026"] == "77"
    code, out, _ = on("cert", "import", "alice.pem")
    assert code == 0 and '"HSM 1:alice 2026" is there already (with its key)' in out
    page = (PROJECT / "docs/json.md").read_text()
    section = page[page.index("## cert list") :].split("\n## ")[0]
    assert (set(told) - {"error"}) | set(told["certificates"][0]) <= set(re.findall(r"[a-z_]+", section))


def test_a_pkcs12_file_comes_with_keys_and_names(on, hsm, folder):
    authority = Authority("P12 CA")
    keys = []
    for name, kind in (("bob", "rsa-2048"), ("carol", "ec-p384")):
        key = make_key(kind)
        keys.append(Pkcs12Key(name, key, authority.certify(public_key_of(key), f"{name}@example.org")))
    data = write_pkcs12(keys, [("P12 CA", authority.certificate)], passphrase=b"other", random=os.urandom, form="modern")
    (folder / "people.p12").write_bytes(data)
    told = answer(on("p12", "import", "people.p12", "--p12-password-file", "other", "--json"))
    assert [(one["nickname"], one["has_key"]) for one in told["certificates"]] == [("bob", True), ("carol", True), ("P12 CA", False)]
    private, certificates = objects(hsm, "privkey"), objects(hsm, "cert")
    assert private["bob"] == certificates["bob"] and private["carol"] == certificates["carol"] and "P12 CA" not in private
    shown = hsm.tool("--token-label", "HSM 1", "--login", "--pin", "12 34", "--list-objects", "--type", "privkey")
    for name in ("bob", "carol"):
        access = re.search(rf"label:\s+{name}\n(?:.*\n)*?\s+Access:(.*)", shown)
        assert access and access[1].strip() == "sensitive", "it is not given away again"
    again = answer(on("p12", "import", "people.p12", "--p12-password-file", "other", "--json"))
    assert not any(one["new"] for one in again["certificates"]) and objects(hsm, "privkey") == private


def test_what_was_put_there_signs_and_opens(on, mailsec, hsm, folder):
    key = make_key("rsa-2048")
    (folder / "dave.key").write_bytes(pem(key, "PRIVATE KEY"))
    (folder / "dave.pem").write_bytes(pem(Authority("Dave's CA").certify(public_key_of(key), "dave@example.org"), "CERTIFICATE"))
    assert on("cert", "import", "dave.pem", "--key", "dave.key")[0] == 0
    told = answer(mailsec("token", "selftest", "HSM 1", "--library", hsm.library, "--pin-file", "pin", "--json"))
    rows = [row for row in told["operations"] if row["key"] == "dave@example.org"]
    assert len([row for row in rows if row["good"]]) >= 4 and not [row for row in rows if row["good"] is False]


def test_a_key_alone_goes_there_or_waits_in_the_database(on, mailsec, hsm, database, folder):
    for name, kind in (("one", "ec-p256"), ("two", "rsa-2048")):
        (folder / f"{name}.key").write_bytes(pem(make_key(kind), "PRIVATE KEY"))
    put = answer(on("key", "import", "one.key", "--label", "alone", "--json"))["keys"][0]
    assert objects(hsm, "privkey")["alone"] == put["id"]
    code, _, err = on("key", "import", "one.key")
    assert code == 2 and "has this key already" in err
    kept = answer(mailsec("key", "import", "two.key", "-d", database, "--json"))["keys"][0]
    assert kept["kind"] == "rsa" and kept["nicknames"] == []
    assert "waits for its certificate" in mailsec("key", "list", "-d", database)[1]


def test_attack_a_certificate_of_somebody_else_under_a_name_that_is_used(on, folder):
    first, second = Authority("First"), Authority("Second")
    for name, authority, address in (("a", first, "erin@example.org"), ("b", second, "mallory@example.net")):
        (folder / f"{name}.pem").write_bytes(pem(authority.certify(public_key_of(make_key("ec-p256")), address), "CERTIFICATE"))
    assert on("cert", "import", "a.pem", "--nickname", "signer")[0] == 0
    code, _, err = on("cert", "import", "b.pem", "--nickname", "signer")
    assert code == 2 and "another subject" in err


def test_a_key_whose_certificate_does_not_fit_is_not_put_there(on, hsm, folder):
    before = objects(hsm, "privkey")
    (folder / "f.key").write_bytes(pem(make_key("ec-p256"), "PRIVATE KEY"))
    (folder / "f.pem").write_bytes(pem(Authority("F").certify(public_key_of(make_key("ec-p256")), "f@example.org"), "CERTIFICATE"))
    code, _, err = on("cert", "import", "f.pem", "--key", "f.key")
    assert code != 0 and "key" in err
    assert objects(hsm, "privkey") == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("cert", "import", "g.pem", "--token", "HSM 1", "--trust", ",P,"), 2, "for the database"),
        (("cert", "import", "g.pem", "--token", "HSM 1", "-d", "nss:x"), 2, "token already"),
        (("cert", "import", "g.pem", "--pin-file", "pin", "-d", "x.db"), 2, "belong to --token"),
        (("cert", "import", "--anchors", "none", "--token", "HSM 1"), 2, "stands alone"),
        (("cert", "import", "g.pem", "--token", "absent"), 1, "absent"),
        (("p12", "import", "g.p12", "--token", "HSM 1", "--assign", "*"), 2, "key assign"),
        (("key", "import", "g.key", "--label", "x", "-d", "x.db"), 2, "on a token"),
        (("key", "import", "absent.key", "--token", "HSM 1"), 3, "absent.key"),
        (("key", "import", "g.pem", "--token", "HSM 1"), 3, "g.pem"),
    ],
)
def test_wrong_calls_are_told_with_a_hint(mailsec, hsm, database, folder, monkeypatch, arguments, code, words):
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state-home"))
    (folder / "pin").write_text("12 34\n")
    (folder / "g.pem").write_bytes(pem(Authority("G").certificate, "CERTIFICATE"))
    library = ("--library", hsm.library) if "--token" in arguments and "-d" not in arguments else ()
    got, _, err = mailsec(*arguments, *library)
    assert (got, words in err) == (code, True), err
    assert "hint:" in err or code == 3


def test_what_lies_on_a_token_is_listed_shown_written_and_deleted_one_by_one(on, mailsec, hsm, folder):
    private, authority = make_key("ec-p256"), Authority("Card CA")
    der = authority.certify(public_key_of(private), "ulrike@example.org")
    data = write_pkcs12([Pkcs12Key("ulrike 2026", private, der)], passphrase=b"pass", random=os.urandom, form="modern")
    (folder / "ulrike.p12").write_bytes(data)
    (folder / "p12pw").write_text("pass\n")
    assert on("p12", "import", "ulrike.p12", "--p12-password-file", "p12pw")[0] == 0
    (row,) = [one for one in answer(on("cert", "list", "--json"))["certificates"] if "ulrike@example.org" in one["addresses"]]
    assert row["has_key"] and row["verified"]
    name = row["nickname"]
    assert answer(on("cert", "show", name, "--json"))["certificates"][0]["addresses"] == ["ulrike@example.org"]
    assert on("cert", "export", name, "--der", "-o", "ulrike.der")[0] == 0 and (folder / "ulrike.der").read_bytes() == der
    (key,) = [one for one in answer(on("key", "list", "--json"))["keys"] if name in one["nicknames"]]
    assert key["key_id"] in objects(hsm, "privkey").values()
    # Without a PIN: what anybody may read.
    code, out, err = mailsec("cert", "list", "--token", "HSM 1", "--library", hsm.library)
    assert code == 0 and "ulrike@example.org" in out and "--pin-file" in err
    assert mailsec("cert", "delete", name, "--yes", "--token", "HSM 1", "--library", hsm.library)[0] == 2
    assert name in objects(hsm, "cert")
    assert on("cert", "delete", name, "--yes", "--keep-key")[0] == 0
    assert name not in objects(hsm, "cert") and key["key_id"] in objects(hsm, "privkey").values()
    assert on("key", "delete", key["key_id"], "--yes")[0] == 0
    assert key["key_id"] not in objects(hsm, "privkey").values()


def test_a_token_for_certificates_is_named_rightly(mailsec, hsm, folder):
    code, _, err = mailsec("cert", "list", "--library", hsm.library)
    assert code == 2 and "--token" in err
    code, _, err = mailsec("key", "list", "--token", "HSM 1", "-d", "nss:x")
    assert code == 2 and "is a token already" in err
    code, _, err = mailsec("cert", "list", "--token", "HSM", "--library", hsm.library)
    assert code in (1, 75) and "'HSM 1'" in err
