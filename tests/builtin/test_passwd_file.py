"""Logins in a file: what `openssl passwd` and crypt(3) write, and what lets nobody in."""

from __future__ import annotations

import subprocess

import pytest

from mailsec.builtin import passwd_file
from mailsec.builtin.passwd_file import PasswdFile, read_passwd
from mailsec.errors import ConfigurationError, Unavailable
from mailsec.interfaces import PEER, Credentials
from mailsec.testing import values
from mailsec.testing.runtime import FakeRuntime

SESSION = values.session()
# "secret", by openssl passwd -6, htpasswd -nB and mkpasswd
SHA512 = "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG."
BCRYPT = passwd_file._crypt(b"secret", "$2b$05$abcdefghijklmnopqrstuu").decode()
YESCRYPT = passwd_file._crypt(b"secret", "$y$j75$abcdefgh").decode()


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def ask(tmp_path, runtime):
    path = tmp_path / "users"
    path.write_text(
        f"# people\nalice@example.org:{SHA512}\nbob:{{BLF-CRYPT}}{BCRYPT}:bob@example.org, @lists.example.org\ncarol@example.org:{YESCRYPT}\n"
    )
    users = PasswdFile(str(path), runtime)

    def login(name: str, password: bytes = b"secret", **more):
        return runtime.run(users.authenticate(Credentials(more.pop("mechanism", "PLAIN"), name, password, **more), SESSION))

    login.path = path
    return login


@pytest.mark.parametrize(
    ("login", "addresses"),
    [
        ("alice@example.org", ("alice@example.org",)),
        ("bob", ("bob@example.org", "@lists.example.org")),
        ("carol@example.org", ("carol@example.org",)),
    ],
)
def test_right_password(ask, login, addresses):
    identity = ask(login)
    assert (identity.name, identity.addresses) == (login, addresses)
    assert ask(login, authorisation=login) is not None


def test_attack_file_that_everybody_may_write_lets_nobody_in(ask):
    ask.path.chmod(0o646)
    with pytest.raises(Unavailable, match="everybody may write to it"):
        ask("bob")


@pytest.mark.parametrize("password", [b"", b"Secret", b"secret ", b"secret\0", b"secret\0x", b"x" * 5000])
def test_wrong_password_is_nobody(ask, password):
    assert all(ask(login, password) is None for login in ("alice@example.org", "bob", "carol@example.org"))


def test_nobody_acts_as_somebody_else(ask):
    assert ask("bob", authorisation="alice@example.org") is None
    assert ask("bob", mechanism="UPSTREAM") is None


def test_openssl_writes_hashes_that_fit(ask, need):
    made = subprocess.run([need("openssl"), "passwd", "-5", "wörd"], capture_output=True, text=True, check=True).stdout.strip()
    ask.path.write_text(f"dora@example.org:{made}\n")
    assert ask("dora@example.org", "wörd".encode()) is not None
    assert ask("alice@example.org") is None, "the file was read again"


def test_attack_user_enumeration_by_timing(ask, monkeypatch):
    hashed = []
    real = passwd_file._crypt
    monkeypatch.setattr(passwd_file, "_crypt", lambda password, setting: hashed.append(setting) or real(password, setting))
    ask("nobody@example.org")
    ask("alice@example.org", b"wrong")
    ask("alice@example.org", b"x" * 1000)
    assert hashed == [SHA512] * 3, "each costs one hash of the same kind"


@pytest.mark.parametrize(
    "line",
    ["alice@example.org", "alice@example.org:", "alice@example.org:secret", "alice@example.org:{PLAIN}secret", "alice@example.org:$1$x$y",
     "alice@example.org:abJnggxhB/yWI", f":{SHA512}", f"alice:{SHA512}", f"alice:{SHA512}:*", f"alice:{SHA512}:1000:1000::/home",
     f"alice@example.org:{SHA512}\nalice@example.org:{SHA512}"],
)  # fmt: skip
def test_line_that_cannot_be_read_lets_nobody_in_and_is_not_shown(ask, line):
    ask.path.write_text(f"bob@example.org:{SHA512}\n{line}\n")
    with pytest.raises(ConfigurationError) as refused:
        read_passwd(ask.path.read_text())
    assert "secret" not in str(refused.value) and SHA512 not in str(refused.value)
    with pytest.raises(Unavailable):
        ask("bob@example.org")


def test_file_that_goes_away_is_a_temporary_failure(ask):
    ask.path.unlink()
    with pytest.raises(Unavailable) as away:
        ask("alice@example.org")
    assert away.value.temporary


def test_peer_that_has_checked_the_password_is_told_whose_login_it_is(ask):
    assert ask("bob", b"", mechanism=PEER).addresses == ("bob@example.org", "@lists.example.org")
    assert ask("nobody", b"", mechanism=PEER) is None
