"""`docs/json.md` is what the commands print, field by field."""

from __future__ import annotations

import re
from pathlib import Path

from .test_init_check_explain import explain, gateway, made, run  # noqa: F401 - fixtures
from .test_smime import files, sign, verify  # noqa: F401 - fixtures

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "json.md").read_text()


def documented(command: str) -> set[str]:
    """The fields that the section of a command lists, `error` with them."""
    section = re.search(rf"^## {re.escape(command)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE).group(1)
    heads = [line.partition(":")[0] for line in section.splitlines() if line.startswith("- ")]
    return {name for head in heads for name in re.findall(r"`([a-z0-9_]+)`", head)} | {"error"}


def keys_within(text: str) -> set[str]:
    return set(re.findall(r'"([a-z0-9_]+)"', text))


def test_smime_verify_prints_what_the_page_says(files, tmp_path):  # noqa: F811
    target = str(tmp_path / "signed.eml")
    sign(files, target)
    _, value = verify(files, target)
    assert set(value) == documented("smime verify")
    layer = value["layers"][0]
    assert set(layer) | set(layer["signers"][0]) | set(layer["signers"][0]["certificate"]) | set(value["reasons"][0]) <= keys_within(PAGE)


def test_decrypt_inspect_and_parse_print_what_the_page_says(files, tmp_path):  # noqa: F811
    import json

    from .test_smime import run as run_in

    target = str(tmp_path / "signed.eml")
    sign(files, target)
    shared = documented("smime verify")
    assert set(json.loads(run_in(files, "smime", "decrypt", "--json", target)[1])) == documented("smime decrypt") | shared
    inspected = json.loads(run_in(files, "smime", "inspect", "--json", target)[1])
    assert set(inspected) == documented("smime inspect") | shared
    parsed = json.loads(run_in(files, "cms", "parse", "--json", target)[1])
    assert documented("cms parse") <= set(parsed) <= keys_within(PAGE) | documented("cms parse") | keys_quoted("cms parse")
    assert set(inspected["layers"][0]) <= keys_within(PAGE) | {"detached", "covers_all", "structure"}


def test_encrypt_prints_what_the_page_says(files, tmp_path):  # noqa: F811
    import json

    from .test_smime import run as run_in

    target = str(tmp_path / "encrypted.eml")
    value = json.loads(run_in(files, "smime", "encrypt", "--json", "--to", "alice.pem", "-o", target, "message.eml")[1])
    assert set(value) == documented("smime encrypt") and value["algorithm"] == "aes-256-cbc"
    opened = json.loads(run_in(files, "smime", "decrypt", "--json", "--key", "alice.key", "--cert", "alice.pem", target)[1])
    assert set(opened) == documented("smime decrypt") | documented("smime verify")
    assert opened["decrypted"] and opened["text"] == "Good day."


def keys_quoted(command: str) -> set[str]:
    section = re.search(rf"^## {re.escape(command)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE).group(1)
    return set(re.findall(r"`([a-z0-9_]+)`", section))


def test_explain_prints_what_the_page_says(gateway):  # noqa: F811
    _, value = explain(gateway, "a@example.org", "--origin", "submission")
    assert set(value) == documented("explain")
    nested = [value["recipients"][0], value["steps"][0], value["outcomes"][0]]
    assert set().union(*nested) <= keys_within(PAGE)


def test_check_init_and_sign_print_what_the_page_says(made, files, tmp_path):  # noqa: F811
    import json

    assert set(json.loads(run("check", "--json", "-c", str(made / "mailsec.toml"))[1])) == documented("check")
    assert set(json.loads(run("init", "--json", str(tmp_path / "new"), "--domain", "example.org")[1])) == documented("init")
    from .test_smime import run as run_in

    options = ("--key", "alice.key", "--cert", "alice.pem", "-o", str(tmp_path / "out.eml"))
    assert set(json.loads(run_in(files, "smime", "sign", "--json", *options, "message.eml")[1])) == documented("smime sign")
