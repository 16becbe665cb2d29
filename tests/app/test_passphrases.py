"""Where pass phrases and PINs come from: exact names, only the line end removed, and a helper that fails has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailsec.app.config.models import Passphrase
from mailsec.app.passphrase import passphrase_source, pin_source
from mailsec.errors import ConfigurationError, InputError

FILE = b"internal:of the database\nHSM 1: 12 34 \nHSM 10:ten\r\nempty:\npkcs11:token=twin;serial=42:forty-two\npkcs11:token=a%3Ab:colon\nlatin:\xe9\n"


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "passphrase"
    path.write_bytes(FILE)
    return str(path)


@pytest.mark.parametrize(
    ("token", "pin"),
    [
        ("HSM 1", b" 12 34 "),
        ("HSM 10", b"ten"),
        ("empty", b""),
        ("pkcs11:token=twin;serial=42", b"forty-two"),
        ("pkcs11:token=a%3Ab", b"colon"),
        ("latin", b"\xe9"),
    ],
)
@pytest.mark.parametrize("method", ["file", "defer"])
def test_a_file_gives_each_token_its_own(file: str, method, token: str, pin: bytes):
    assert pin_source(Passphrase(method=method, file=file), token) == pin
    assert passphrase_source(Passphrase(method=method, file=file)) == "of the database"


@pytest.mark.parametrize("token", ["HSM", "HSM 100", "hsm 1", "HSM 1 ", "", "of the database", "twin", "pkcs11:token=twin"])
def test_attack_a_name_that_only_begins_alike_gets_no_pin(file: str, token: str):
    with pytest.raises(ConfigurationError, match="has no line"):
        pin_source(Passphrase(method="file", file=file), token)
    assert pin_source(Passphrase(method="defer", file=file), token) is None


def test_attack_the_pass_phrase_of_the_database_is_no_pin(tmp_path):
    (tmp_path / "one").write_text("only the database's\n")
    settings = Passphrase(method="file", file=str(tmp_path / "one"))
    assert passphrase_source(settings) == "only the database's"
    with pytest.raises(ConfigurationError):
        pin_source(settings, "HSM 1")


def test_the_last_line_of_a_name_counts(tmp_path):
    (tmp_path / "two").write_text("HSM 1:old\nHSM 1:new\n")
    assert pin_source(Passphrase(method="file", file=str(tmp_path / "two")), "HSM 1") == b"new"


def helper(tmp_path: Path, script: str) -> Passphrase:
    path = tmp_path / "helper"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o700)
    return Passphrase(method="exec", command=str(path))


def test_a_helper_is_asked_by_name(tmp_path):
    settings = helper(tmp_path, 'printf "pin of %s \\n" "$1"\n')
    assert pin_source(settings, "HSM 1") == b"pin of HSM 1 "
    assert passphrase_source(settings) == "pin of internal "


@pytest.mark.parametrize("script", ["echo 1234; exit 1\n", "exit 0\n", "printf '\\n'\n", "echo one; echo two\n", "kill -9 $$\n"])
def test_attack_a_helper_that_fails_has_given_no_pin(tmp_path, script: str):
    """mod_nss ignores how its helper ended, and takes what it wrote half-way for a PIN."""
    with pytest.raises((ConfigurationError, InputError)):
        pin_source(helper(tmp_path, script), "HSM 1")


def test_a_name_is_no_shell(tmp_path):
    assert pin_source(helper(tmp_path, 'printf "%s" "$1"\n'), "$(touch bad); `id`") == b"$(touch bad); `id`"


def test_a_helper_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be run"):
        pin_source(Passphrase(method="exec", command=str(tmp_path / "absent")), "HSM 1")


def test_credentials_of_systemd_are_written_as_the_file_is(tmp_path, monkeypatch):
    (tmp_path / "mailsec-passphrase").write_bytes(FILE)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert pin_source(Passphrase(method="systemd"), "HSM 10") == b"ten"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigurationError, match="no credentials"):
        pin_source(Passphrase(method="systemd"), "HSM 10")


def test_with_builtin_only_the_terminal_knows():
    assert pin_source(Passphrase(method="builtin"), "HSM 1") is None
