"""`mailsec cert verify` and `mailsec ocsp verify`: exit codes, JSON, and the cases of others through the command line."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from pki_authorities import NOW
from test_revocation import answer, crl, serial

from mailsec.app.cli import run
from mailsec.app.output import Output


def mailsec(*arguments: object) -> tuple[int, dict]:
    out, err = io.StringIO(), io.StringIO()
    code = run([str(argument) for argument in arguments] + ["--json"], Output(out, err))
    assert "Traceback" not in err.getvalue()
    return code, json.loads(out.getvalue())


@pytest.fixture
def files(tmp_path, root, authority, alice):
    for name, party in {"root": root, "authority": authority, "alice": alice}.items():
        (tmp_path / f"{name}.pem").write_bytes(party.parsed.public_bytes(Encoding.PEM))
    return tmp_path


AT = ("--at", NOW.isoformat())


def test_a_valid_certificate(files):
    code, value = mailsec(
        "cert", "verify", "--anchor", files / "root.pem", "--intermediate", files / "authority.pem", *AT, "--purpose", "email-sign",
        "--email", "Alice@example.org", files / "alice.pem",
    )  # fmt: skip
    assert code == 0 and value["valid"] is True and value["error"] is None and value["reasons"] == []
    assert [link["subject"] for link in value["chain"]] == ["CN=Alice", "CN=Authority", "CN=Root"]
    assert value["chain"][0]["addresses"] == ["alice@example.org"] and value["revocation"] == "not-checked"
    assert value["checks"][2]["role"] == "anchor" and value["valid_until"] == "2027-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--email", "bob@example.org"], "address-differs"),
        (["--host", "example.org"], "host-differs"),
        (["--purpose", "tls-server"], "extended-key-usage"),
        (["--max-depth", "0"], "path-too-long"),
        (["--policy", "1.2.3", "--explicit-policy"], "policy-missing"),
        (["--require-crl"], "revocation-unknown"),
        (["--at", "2030-01-01T00:00:00Z"], "expired"),
    ],
)
def test_what_is_asked_for_and_missing(files, more, code):
    exit_code, value = mailsec(
        "cert", "verify", "--anchor", files / "root.pem", "--intermediate", files / "authority.pem", *AT, *more, files / "alice.pem"
    )
    assert exit_code == 1 and value["valid"] is False
    assert code in [reason["code"] for reason in value["reasons"]]


def test_no_anchor_and_no_issuer(files):
    assert mailsec("cert", "verify", *AT, files / "alice.pem")[1]["reasons"][0]["code"] == "no-anchor"
    code, value = mailsec("cert", "verify", "--anchor", files / "root.pem", *AT, files / "alice.pem")
    assert code == 1 and value["reasons"][0]["code"] == "issuer-not-found" and value["missing"] == [{"kind": "issuer", "urls": []}]


def test_an_anchor_that_is_not_self_signed_needs_partial_chain(files):
    arguments = ("cert", "verify", "--anchor", files / "authority.pem", *AT, files / "alice.pem")
    assert mailsec(*arguments)[0] == 1
    assert mailsec(*arguments, "--partial-chain")[0] == 0


def test_lists(files, root, authority, alice):
    (files / "root.crl").write_bytes(crl(root))
    lists = {"good": crl(authority), "bad": crl(authority, serial(alice)), "forged": crl(authority, sign_with="mallory")}
    for name, octets in lists.items():
        (files / f"{name}.crl").write_bytes(x509.load_der_x509_crl(octets).public_bytes(Encoding.PEM))
    arguments = ("cert", "verify", "--anchor", files / "root.pem", "--intermediate", files / "authority.pem", *AT, files / "alice.pem")
    code, value = mailsec(*arguments, "--crl", files / "root.crl", "--crl", files / "good.crl", "--require-crl")
    assert code == 0 and value["revocation"] == "good"
    code, value = mailsec(*arguments, "--crl", files / "root.crl", "--crl", files / "bad.crl")
    assert code == 1 and value["revocation"] == "revoked" and value["reasons"][0]["code"] == "revoked"
    # No list for Alice: not known, and that was not asked for. A list that was changed: not the same as none.
    assert mailsec(*arguments, "--crl", files / "root.crl")[0] == 0
    assert mailsec(*arguments, "--crl", files / "root.crl", "--crl", files / "forged.crl")[0] == 1


def test_what_is_no_certificate(tmp_path):
    (tmp_path / "x.der").write_bytes(b"\x30\x03\x02\x01\x01")
    code, value = mailsec("cert", "verify", tmp_path / "x.der")
    assert code == 3 and value["error"]["class"] == "CertificateError" and value["error"]["stage"] == "parse"


def test_ocsp_verify(files, authority, alice):
    (files / "good.ors").write_bytes(answer(alice, authority))
    (files / "revoked.ors").write_bytes(answer(alice, authority, ocsp.OCSPCertStatus.REVOKED))
    (files / "forged.ors").write_bytes(answer(alice, authority, ocsp.OCSPCertStatus.UNKNOWN).replace(b"\x82\x00", b"\x80\x00", 1))
    arguments = (
        "ocsp",
        "verify",
        "--anchor",
        files / "root.pem",
        "--intermediate",
        files / "authority.pem",
        "--cert",
        files / "alice.pem",
        *AT,
    )
    code, value = mailsec(*arguments, files / "good.ors")
    assert (code, value["valid"], value["status"], value["responder"]) == (0, True, "good", "CN=Authority")
    code, value = mailsec(*arguments, files / "revoked.ors")
    assert (code, value["status"], value["revoked_at"]) == (0, "revoked", "2026-05-31T00:00:00Z")
    code, value = mailsec(*arguments, files / "forged.ors")
    assert (code, value["valid"], value["status"]) == (1, False, None) and value["reasons"][0]["code"] == "ocsp-signature"
    # A response of yesterday is valid, and says nothing of today.
    later = ("--at", (NOW + dt.timedelta(days=3)).isoformat())
    code, value = mailsec(*arguments[:-2], *later, files / "good.ors")
    assert (code, value["valid"], value["current"], value["status"]) == (0, True, False, "unknown")
    assert value["reasons"][0]["code"] == "ocsp-stale"
    # The issuer is believed where it is named and no anchor is.
    assert mailsec("ocsp", "verify", "--issuer", files / "authority.pem", *AT, files / "good.ors")[0] == 0
    assert mailsec("ocsp", "verify", "--issuer", files / "root.pem", *AT, files / "good.ors")[0] == 1


def test_the_page_of_fields_is_true(files, authority, alice):
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()

    def documented(command: str) -> set[str]:
        section = page.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
        heads = [line.partition(":")[0] for line in section.splitlines() if line.startswith("- ")]
        return {name for head in heads for name in re.findall(r"`([a-z_]+)`", head)} | {"error"}

    (files / "x.ors").write_bytes(answer(alice, authority))
    assert set(mailsec("cert", "verify", *AT, files / "alice.pem")[1]) == documented("cert verify")
    assert set(mailsec("ocsp", "verify", "--issuer", files / "authority.pem", *AT, files / "x.ors")[1]) == documented("ocsp verify")


def test_tables_for_people(files):
    out = io.StringIO()
    code = run(["cert", "verify", "--anchor", str(files / "root.pem"), *AT, str(files / "alice.pem")], Output(out, io.StringIO()))
    assert code == 1 and out.getvalue().startswith("not valid") and "issuer-not-found" in out.getvalue()


def test_it_answers_fast_and_imports_little(files):
    script = (
        "import sys; from mailsec.app.cli import run; from mailsec.app.output import Output; run(sys.argv[1:], Output()); "
        "print([name for name in ('twisted', 'sqlalchemy', 'pydantic', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "cert", "verify", "--anchor", files / "root.pem", *AT, files / "alice.pem"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


# -- through the command line, the cases of others ----------------------------------------------------------------------------

# DSA with SHA-1 is refused unless --allow-legacy is given, and says so.
PKITS_LEGACY = {"pkits/40104/valid_dsa_signatures_test4"}


def pkits_arguments(folder: Path, row: dict) -> list[object]:
    """The options that go with a row of the suite."""
    inputs = row["params"]
    arguments: list[object] = ["--anchor", folder / row["anchor"], "--at", row["at"]]
    for option, names in (("--intermediate", row["intermediates"]), ("--crl", row["crls"])):
        for name in names:
            arguments += [option, folder / name]
    for policy in inputs.get("user_initial_policy_set") or []:
        arguments += ["--policy", policy]
    arguments += ["--explicit-policy"] if inputs.get("initial_explicit_policy") else []
    arguments += ["--inhibit-mapping"] if inputs.get("initial_policy_mapping_inhibit") else []
    arguments += ["--inhibit-any"] if inputs.get("initial_any_policy_inhibit") else []
    return arguments + (["--require-crl"] if row["revocation"] else [])


@pytest.mark.vectors
def test_pkits(vectors):
    folder = vectors / "pkits"
    wrong = []
    for row in json.loads((folder / "expected.json").read_text()):
        arguments = ["cert", "verify", *pkits_arguments(folder, row)]
        code, value = mailsec(*arguments, folder / row["cert"])
        if row["id"] in PKITS_LEGACY:
            assert not value["valid"] and {"weak-digest", "weak-algorithm"} & {reason["code"] for reason in value["reasons"]}
            code, value = mailsec(*arguments, "--allow-legacy", folder / row["cert"])
        if value.get("valid") is not row["valid"] or code != (0 if row["valid"] else 1):
            wrong.append((row["id"], code, value["reasons"]))
    assert wrong == []


@pytest.mark.vectors
def test_messages_of_pkits(vectors):
    """Its signed messages: the signature is right in each, the chain as the suite says. Few of its certificates name an address."""
    folder = vectors / "pkits"
    rows = [row for row in json.loads((folder / "expected.json").read_text()) if row["eml"] and (folder / row["eml"]).exists()]
    assert len(rows) > 50
    wrong = []
    for row in rows:
        _, value = mailsec("smime", "verify", "--allow-legacy", *pkits_arguments(folder, row), folder / row["eml"])
        valid = bool(value["chain_valid"]) and (not row["revocation"] or value["revocation"] == "good")
        if valid is not row["valid"] or not value["signature_valid"] or (value["trusted"] and not row["valid"]):
            wrong.append((row["id"], value["reasons"]))
    assert wrong == []


@pytest.mark.vectors
def test_openssl_ocsp(vectors):
    folder = vectors / "openssl-ocsp"
    wrong = []
    for row in json.loads((folder / "expected.json").read_text()):
        arguments = ["ocsp", "verify", "--issuer", folder / row["issuer"], "--intermediate", folder / row["extra"], "--at", row["at"]]
        arguments += ["--no-cert-checks"] if row["no_cert_checks"] else []
        # All of them are signed with SHA-1: refused without --allow-legacy.
        assert mailsec(*arguments, folder / row["ors"])[0] == 1
        code, value = mailsec(*arguments, "--allow-legacy", folder / row["ors"])
        if value.get("valid") is not row["valid"]:
            wrong.append((row["id"], code, value["reasons"]))
    assert wrong == []
