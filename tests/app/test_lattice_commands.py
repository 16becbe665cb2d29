"""ML-DSA and ML-KEM keys on a token by command: made there, asked for and given certificates, brought there, tried; with wrong input, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailsec.app.commands.init import set_up_database
from mailsec.app.config.render import render
from mailsec.keys.files import pem
from mailsec.x509.issue import make_key
from tests.peers.lattice import Lattice
from tests.peers.softhsm import SoftHsm


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(SoftHSM2, the lattice module over it)."""
    directory = tmp_path_factory.mktemp("lattice")
    hsm, lattice = SoftHsm(directory / "hsm"), Lattice(directory / "lattice")
    hsm.add("HSM 1", "12 34")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (hsm.environment | lattice.environment).items():
            patch.setenv(name, value)
        yield hsm, lattice


@pytest.fixture
def given(mailsec, world, folder: Path):
    """given("cert", "list"): a command with a configuration that names the module."""
    set_up_database(folder, "gw.example.org", ["example.org"])
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"], "state_directory": "state"},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "module": [{"name": "pq", "library": world[1].library}],
        "passphrase": {"method": "file", "file": "passphrase"},
        "relay": {"next_hop": "smtp://[127.0.0.1]:26"},
    }
    Path("mailsec.toml").write_text(render(values))
    Path("pin").write_text("12 34\n")
    return lambda *arguments: mailsec(*arguments, "-c", "mailsec.toml")


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err + out
    return json.loads(out)


def test_a_key_is_made_on_the_token_asked_for_and_its_certificate_put_beside_it(given):
    pin = ("--pin-file", "pin")
    made = answer(given("key", "generate", "--token", "HSM 1", "--key", "ml-dsa-65", "--label", "dora", *pin, "--json"))["keys"][0]
    assert made["key_type"] == "ml-dsa-65" and made["label"] == "dora"
    assert given("cert", "request", "--address", "dora@example.org", "--with", "HSM 1:dora", *pin, "-o", "dora.csr")[0] == 0
    assert given("cert", "issue", "--request", "dora.csr", "-o", "dora.pem")[0] == 0
    put = answer(given("cert", "import", "dora.pem", "--token", "HSM 1", *pin, "--json"))["certificates"][0]
    assert put["has_key"] and put["id"] == made["id"]
    code, out, err = given("token", "selftest", "HSM 1", *pin, "--json")
    assert code == 0, err
    assert [(row["operation"], row["good"]) for row in json.loads(out)["operations"]] == [("ml-dsa-65", True)]


def test_a_key_that_signs_nothing_gets_its_certificate_without_a_request(given):
    pin = ("--pin-file", "pin")
    made = answer(given("key", "generate", "--token", "HSM 1", "--key", "ml-kem-768", "--label", "kim", *pin, "--json"))["keys"][0]
    assert made["key_type"] == "ml-kem-768"
    code, _, err = given("cert", "request", "--address", "kim@example.org", "--with", "HSM 1:kim", *pin)
    assert code == 3 and "signs nothing" in err
    issued = ("cert", "issue", "--address", "kim@example.org", "--with", "HSM 1:kim", *pin, "-o", "kim.pem", "--json")
    told = answer(given(*issued))["certificates"][0]
    assert told["addresses"] == ["kim@example.org"] and not told["has_key"]
    put = answer(given("cert", "import", "kim.pem", "--token", "HSM 1", *pin, "--json"))["certificates"][0]
    assert put["has_key"] and put["id"] == made["id"]
    rows = json.loads(given("token", "selftest", "HSM 1", *pin, "--json")[1])["operations"]
    assert [row["good"] for row in rows if row["operation"] == "ml-kem-768"] == [True]


def test_a_key_of_the_database_that_signs_nothing_gets_its_certificate_too(given):
    made = answer(given("key", "generate", "--key", "ml-kem-1024", "--json"))["keys"][0]
    told = answer(given("cert", "issue", "--address", "kurt@example.org", "--with", made["key_id"][:16], "--json"))
    assert told["certificates"][0]["has_key"]


@pytest.mark.parametrize("kind", ["ml-dsa-44", "ml-kem-1024"])
def test_a_key_from_a_file_is_put_on_the_token(given, kind: str):
    Path("key.pem").write_bytes(pem(make_key(kind), "PRIVATE KEY"))
    put = answer(given("key", "import", "key.pem", "--token", "HSM 1", "--pin-file", "pin", "--label", f"a file's {kind}", "--json"))
    assert put["keys"][0]["key_type"] == kind


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("key", "generate", "--token", "HSM 1", "--key", "x25519"), 2, "no key of kind 'x25519'"),
        (("cert", "issue", "--address", "a@example.org", "--with", "HSM 1:nobody", "--key", "ec-p256"), 2, "leave --key out"),
        (("cert", "issue", "--host", "a.example.org", "--with", "HSM 1:nobody"), 2, "--with is for --address"),
        (("cert", "issue", "--address", "a@example.org", "--with", "feed", "--library", "x.so"), 2, "TOKEN:NAME"),
        (("cert", "issue", "--address", "a@example.org", "--with", "feed"), 1, "key list"),
        (("cert", "issue", "--address", "a@example.org", "--with", "HSM 1:nobody"), 1, "token 'HSM 1' has no key"),
    ],
)
def test_wrong_calls_are_told_with_a_hint(given, arguments: tuple[str, ...], code: int, words: str):
    pin = ("--pin-file", "pin") if "HSM 1" in " ".join(arguments) else ()
    got, _, err = given(*arguments, *pin)
    assert words in err and got == code, err
