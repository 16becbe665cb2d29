"""Who may log in, with the whole gateway: SCRAM with GNU SASL; Dovecot's auth socket, a passwd file, and another mail server that is asked."""

from __future__ import annotations

import base64
import smtplib
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.builtin.test_passwd_file import SHA512
from tests.peers import dovecot as dovecots
from tests.peers.gateway import Gateway, server_certificate
from tests.peers.postfix import free_port

MESSAGE = "From: {0}\r\nTo: bob@example.net\r\nSubject: x\r\n\r\nhello\r\n"


AUTH = """\
auth_failure_delay = 0
service auth {{
  unix_listener {0}/auth-client {{
    mode = 0666
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


@pytest.fixture(scope="module")
def plain_gateway(tmp_path_factory):
    """One with the users of its database only."""
    with_users = Gateway(tmp_path_factory.mktemp("users") / "gateway", free_port(), workers=1)
    with_users.start()
    yield with_users
    with_users.close()


@pytest.fixture(scope="module")
def dovecot():
    if why := dovecots.why_not():
        pytest.skip(why)
    # Dovecot's processes have users of their own, whom pytest's directories keep out; and its penalties for guessing are not ours to wait for.
    with tempfile.TemporaryDirectory(prefix="mailsec-dovecot-") as name:
        server = dovecots.Dovecot(Path(name), *server_certificate(), more=AUTH.format(name))
        yield server.start()
        server.stop()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, plain_gateway, dovecot):
    """One that asks others."""
    directory = tmp_path_factory.mktemp("others") / "gateway"
    upstream = f"smtp://[127.0.0.1]:{plain_gateway.ports['submission']}"
    with_others = Gateway(
        directory,
        free_port(),
        workers=1,
        relay={"ca_file": str(plain_gateway.ca_file)},
        authenticator=[
            {"kind": "dovecot", "socket": f"unix:{dovecot.directory}/auth-client", "domains": ["example.org"]},
            {"kind": "passwd-file", "file": "people"},
            {"kind": "upstream", "server": upstream, "domains": ["example.org"]},
        ],
    )
    (directory / "people").write_text(f"dora:{SHA512}:dora@example.org\n")
    (directory / "people").chmod(0o600)
    yield with_others.start()
    with_others.close()


def client(gateway) -> smtplib.SMTP:
    smtp = smtplib.SMTP("127.0.0.1", gateway.ports["submission"], timeout=30)
    smtp.starttls(context=ssl.create_default_context(cafile=str(gateway.ca_file)))
    smtp.ehlo()
    return smtp


@pytest.mark.parametrize(("mechanism", "more"), [("SCRAM-SHA-256", ["--no-cb"]), ("SCRAM-SHA-256-PLUS", [])])
def test_gnu_sasl_logs_in_by_scram(plain_gateway, need, mechanism, more):
    gsasl = need("gsasl")

    def login(password: str) -> subprocess.CompletedProcess[str]:
        command = [
            gsasl, "--client", "--smtp", f"--connect=127.0.0.1:{plain_gateway.ports['submission']}", f"--mechanism={mechanism}", *more,
            "--authentication-id=alice", f"--password={password}", f"--x509-ca-file={plain_gateway.ca_file}",
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    done = login(plain_gateway.password)
    assert done.returncode == 0 and "235 2.7.0" in done.stdout, done.stdout + done.stderr
    done = login("wrong")
    assert done.returncode != 0 and "535 5.7.8" in done.stdout, done.stdout + done.stderr


def test_scram_is_offered_where_all_who_check_passwords_can_do_it(plain_gateway, gateway):
    with client(plain_gateway) as smtp:
        assert smtp.esmtp_features["auth"].split() == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
    with client(gateway) as smtp:
        assert smtp.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]


def test_attack_login_that_does_not_exist_looks_like_one_that_does(plain_gateway):
    def challenge(login: str) -> dict[str, str]:
        with client(plain_gateway) as smtp:
            first = base64.b64encode(f"n,,n={login},r=abc".encode()).decode()
            code, answer = smtp.docmd("AUTH", f"SCRAM-SHA-256 {first}")
            assert code == 334
            smtp.docmd("*")
        return dict(field.split("=", 1) for field in base64.b64decode(answer).decode().split(","))

    known, nobody, again = challenge("alice"), challenge("nobody"), challenge("nobody")
    assert nobody["s"] == again["s"] != challenge("other")["s"], "the salt of nobody stays the same"
    assert (
        challenge("ALICE")["s"] == known["s"]
        and challenge("Nobody")["s"] == challenge("nob\N{VARIATION SELECTOR-1}ody")["s"] == nobody["s"]
    )
    assert len(nobody["s"]) == len(known["s"]) and nobody["i"] == known["i"]
    assert nobody["r"] != again["r"]


@pytest.mark.parametrize(
    ("login", "password", "address"),
    [
        ("bob", "secret", "bob@example.org"),
        ("BOB@example.org", "secret", "bob@example.org"),
        ("dora", "secret", "dora@example.org"),
        ("alice", None, "alice@example.org"),
    ],
    ids=["dovecot", "dovecot-address", "passwd-file", "upstream"],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_login_that_others_check(gateway, login, password, address, mechanism):
    password = password or gateway.password
    for tried, fits in ((password + "x", False), (password, True)):
        with client(gateway) as smtp:
            smtp.user, smtp.password = login, tried
            if not fits:
                with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                    smtp.auth(mechanism, smtp.auth_plain if mechanism == "PLAIN" else smtp.auth_login)
                assert refused.value.smtp_code == 535
                continue
            smtp.auth(mechanism, smtp.auth_plain if mechanism == "PLAIN" else smtp.auth_login)
            with pytest.raises(smtplib.SMTPSenderRefused):
                smtp.sendmail("carol@example.org", ["x@example.net"], MESSAGE.format("carol@example.org"))
            smtp.mail(address)
            assert smtp.rcpt("x@example.net")[0] == 250


def test_dovecot_that_is_away_is_a_temporary_failure_and_others_still_log_in(gateway, dovecot):
    dovecot.stop()
    try:
        with client(gateway) as smtp:
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                smtp.login("bob", "secret")
            assert refused.value.smtp_code == 454
            smtp.login("dora", "secret")
    finally:
        dovecot.start()
