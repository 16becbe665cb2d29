"""Third-party cases of S/MIME and CMS through the command line: what each suite says must hold. Where mailsec rightly differs, the case
stands in `deviations.md`, with the reason.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mailsec.app import cli
from mailsec.app.output import Output
from mailsec.keys import files

pytestmark = pytest.mark.vectors

HERE = Path(__file__).resolve().parent
SUITES = (
    "openssl-cms",
    "rfc4134-examples",
    "bouncycastle-smime",
    "nss-smime-interop",
    "go-pkcs7-fixtures",
    "rustcrypto-cms",
    "thunderbird-smime",
)
DEVIATIONS = set(re.findall(r"^\| `([^`]+)` \|", (HERE / "deviations.md").read_text(), re.MULTILINE))
EXIT_CODES = (0, 1, 2, 3, 75, 78)


@pytest.fixture(autouse=True)
def each_pkcs12_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NSS derives the keys of its files in a million iterations."""
    monkeypatch.setattr("mailsec.keys.files.load_pkcs12", _load_pkcs12)


_load_pkcs12 = functools.cache(files.load_pkcs12)


def rows() -> list[Any]:
    vectors = HERE.parents[2] / "shared" / "vectors"
    found = []
    for suite in SUITES:
        listing = vectors / suite / "expected.json"
        for row in json.loads(listing.read_text()) if listing.exists() else ():
            found.append(pytest.param(vectors / suite, row, id=row["id"]))
    return found or [pytest.param(None, None, marks=pytest.mark.skip("no ../shared/vectors beside this checkout"))]


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    out, err = io.StringIO(), io.StringIO()
    code = cli.run([*arguments[:2], "--json", *arguments[2:]], Output(out, err))
    assert code in EXIT_CODES, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return code, json.loads(out.getvalue()) if code != 2 else {}


def arguments(folder: Path, row: dict[str, Any], operation: str, *, legacy: bool) -> list[str]:
    """The command line of a row."""
    given = ["--form", row.get("form", "auto")]
    if operation == "parse":
        return given
    options = {"key": ("key",), "cert": ("cert",), "p12": ("p12",)}
    if operation == "verify":
        options |= {"anchor": ("anchors", "anchor"), "intermediate": ("intermediates", "extra"), "crl": ("crls",), "content": ("content",)}
        given += ["--at", row.get("at") or "2026-11-22T00:00:00Z"] if row.get("at") or row["id"].startswith("tb/") else []
    for option, names in options.items():
        for name in names:
            value = row.get(name) or []
            for one in [value] if isinstance(value, str) else value:
                given += [f"--{option}", str(folder / one)]
    if row.get("p12"):
        given += ["--p12-password", row["p12_password"]]
    return [*given, "--allow-legacy"] if legacy else given


def check_decrypt(folder: Path, row: dict[str, Any], file: str) -> None:
    code, value = run("smime", "decrypt", *arguments(folder, row, "decrypt", legacy=bool(row.get("legacy"))), file)
    expected = row.get("decrypt_ok", True)
    assert (value.get("decrypted") is True) == expected == (code == 0), value
    if not expected:
        assert not value.get("plaintext_b64") and not value.get("text")
        return
    plain = base64.b64decode(value["plaintext_b64"])
    if row.get("plaintext_file"):
        content = (folder / row["plaintext_file"]).read_bytes()
        # Where a message was encrypted, the file is its text without the header of the entity.
        assert plain == content or plain.replace(b"\r\n", b"\n").rstrip(b"\n").endswith(content.replace(b"\r\n", b"\n").rstrip(b"\n"))
    if row.get("text"):
        assert row["text"] in plain.decode()
    if row.get("legacy"):
        code, value = run("smime", "decrypt", *arguments(folder, row, "decrypt", legacy=False), file)
        assert code == 0 or (value["decrypted"] is False and not value["plaintext_b64"] and value["reasons"])
        assert code == 0 or any("weak" in reason["code"] for reason in value["reasons"])


def check_parse(folder: Path, row: dict[str, Any], file: str) -> None:
    code, value = run("cms", "parse", *arguments(folder, row, "parse", legacy=False), file)
    if row["want"] == "parse-ok":
        assert code == 0 and value["type"] != "unknown" and value["error"] is None, value
    elif row["want"] == "certs-only":
        assert code == 0 and value["type"] == "SignedData" and value["signers"] == [] and value["certificates"]
    else:
        _, value = run("smime", "verify", "--form", row["form"], file)
        assert not value.get("signature_valid") and not value.get("trusted")


def check_verify(folder: Path, row: dict[str, Any], file: str) -> None:
    for legacy in (False, True):
        _, value = run("smime", "verify", *arguments(folder, row, "verify", legacy=legacy), file)
        if "signed" in row:
            assert value["signed"] == row["signed"] and value["encrypted"] == row["encrypted"]
        if row.get("crypto_valid") is not None and (legacy or not row.get("legacy")):
            assert bool(value.get("signature_valid")) == row["crypto_valid"], value
        if row.get("chain_valid") is not None and (legacy or not row.get("legacy")):
            assert value["chain_valid"] == row["chain_valid"], value
        expected = row.get("trusted_if_sha1_allowed", row.get("trusted")) if legacy else row.get("trusted")
        if expected is not None and (legacy or not row.get("legacy")):
            assert value["trusted"] == expected, value
        if row.get("text"):
            assert row["text"] in (value["text"] or "")
        if row.get("legacy") and not legacy:
            assert not value.get("trusted") and (
                "error" not in value or value["error"] or any("weak" in one["code"] for one in value["reasons"])
            )


CHECKS = {"decrypt": check_decrypt, "parse": check_parse, "smime": check_verify, "smime-verify": check_verify, "cms-verify": check_verify}


@pytest.mark.parametrize(("folder", "row"), rows())
def test_what_the_suite_says(folder: Path, row: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if row["id"] in DEVIATIONS:
        # A deviation that has gone is one to take out of the list.
        request.applymarker(pytest.mark.xfail(strict=True, reason="stands in deviations.md"))
    CHECKS[row["op"]](folder, row, str(folder / row["file"]))


def test_every_deviation_is_a_case() -> None:
    listed = {parameter.id for parameter in rows()}
    assert listed >= DEVIATIONS or listed == {None}


def test_inputs_that_fuzzers_found_end_in_an_answer(vectors: Path, tmp_path: Path) -> None:
    with tarfile.open(vectors / "openssl-fuzz-corpora" / "cms.tar.gz") as archive:
        for number, member in enumerate(archive):
            file = archive.extractfile(member) if member.isfile() else None
            # Each fifth one: all of them are for "make fuzz".
            if file is None or number % 5:
                continue
            target = tmp_path / "input"
            target.write_bytes(file.read())
            run("cms", "parse", "--form", "cms-der", str(target))
            _, value = run("smime", "verify", "--form", "cms-der", str(target))
            assert not value.get("trusted")
            _, value = run("smime", "inspect", "--form", "cms-der", str(target))
            assert not value.get("decrypted")


def test_deviations_for_old_algorithms_end_with_allow_legacy(vectors: Path) -> None:
    for parameter in rows():
        folder, row = parameter.values
        file = str(folder / row["file"]) if folder is not None else ""
        if parameter.id in ("bc/ecdh1", "bc/ecdh2", "nss/fran-oaep_ossl.env"):
            check_decrypt(folder, {**row, "legacy": True}, file)
        elif parameter.id == "bc/validator.validMail.eml":
            check_verify(folder, {**row, "legacy": True}, file)
