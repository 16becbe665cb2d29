"""Programs that people read their mail with, at the gateway's listeners."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PLAIN = b"From: carol@partner.example\r\nTo: alice@example.org\r\nSubject: letter\r\n\r\n.dot\r\n..\r\nhello\r\n"


def run(command: list[str], **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **more)  # type: ignore[call-overload]


@pytest.mark.parametrize("listener", ["pop3s", "pop3"])
def test_curl(need, empty, listener):
    curl = need("curl")
    empty.dovecot.put("alice", PLAIN)
    port = empty.gateway.ports[listener]
    base = [curl, "-sS", "--cacert", str(empty.gateway.ca_file), "--ssl-reqd", "-u", "alice:secret"]
    url = f"{listener}://localhost:{port}/"
    assert run([*base, url]).stdout == b"1 %d\r\n" % len(PLAIN)
    done = run([*base, url + "1"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"Authentication-Results: gw.example.org; smime=none\r\n") and done.stdout.endswith(PLAIN)
    assert run([*base, "--login-options", "AUTH=PLAIN", url]).returncode == 0
    assert run([*base[:-1], "alice:wrong", url]).returncode == 67  # login denied


def test_curl_in_clear_gets_nowhere(need, empty):
    done = run([need("curl"), "-sS", "-u", "alice:secret", f"pop3://localhost:{empty.gateway.ports['pop3']}/"])
    assert done.returncode != 0


@pytest.mark.parametrize(("listener", "more"), [("pop3s", []), ("pop3", ["-starttls", "pop3"])])
def test_openssl_s_client(need, empty, listener, more):
    empty.dovecot.put("alice", PLAIN)
    command = [need("openssl"), "s_client", "-quiet", "-crlf", "-verify_return_error", "-CAfile", str(empty.gateway.ca_file)]
    with subprocess.Popen(
        [*command, *more, "-connect", f"localhost:{empty.gateway.ports[listener]}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        said, _ = client.communicate(b"USER alice\nPASS secret\nSTAT\nLIST 1\nQUIT\n", timeout=30)
    assert b"+OK 1 %d\r\n" % len(PLAIN) in said and said.endswith(b"+OK goodbye\r\n"), said


def test_mpop_fetches_and_deletes(need, empty, tmp_path: Path):
    mpop = need("mpop")
    for number in range(3):
        empty.dovecot.put("alice", PLAIN + b"%d\r\n" % number)
    maildir = tmp_path / "mail"
    for folder in ("cur", "new", "tmp"):
        (maildir / folder).mkdir(parents=True)
    configuration = tmp_path / "mpoprc"
    configuration.write_text(
        f"account a\nhost localhost\nport {empty.gateway.ports['pop3s']}\nuser alice\npassword secret\ntls on\ntls_starttls off\n"
        f"tls_trust_file {empty.gateway.ca_file}\ndelivery maildir {maildir}\nuidls_file {tmp_path}/uidls\nkeep off\nreceived_header off\n"
    )
    configuration.chmod(0o600)
    done = run([mpop, "-C", str(configuration), "a"], env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    fetched = [path.read_bytes() for path in (maildir / "new").iterdir()]
    assert len(fetched) == 3 and all(one.startswith(b"Authentication-Results: gw.example.org; smime=none") for one in fetched)
    assert empty.dovecot.messages("alice") == []


def test_fetchmail_fetches_and_deletes(need, empty, tmp_path: Path):
    fetchmail = need("fetchmail")
    for number in range(3):
        empty.dovecot.put("alice", PLAIN + b"%d\r\n" % number)
    configuration = tmp_path / "fetchmailrc"
    configuration.write_text(
        f'poll localhost service {empty.gateway.ports["pop3"]} protocol pop3 user "alice" password "secret" '
        f'sslproto tls1.2+ sslcertck sslcertfile {empty.gateway.ca_file} mda "tee -a {tmp_path}/mail"\n'
    )
    configuration.chmod(0o600)
    environment = {**os.environ, "HOME": str(tmp_path), "FETCHMAILHOME": str(tmp_path)}
    done = run([fetchmail, "-f", str(configuration), "--pidfile", str(tmp_path / "pid"), "--nosyslog"], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    fetched = (tmp_path / "mail").read_bytes()
    assert fetched.count(b"Authentication-Results: gw.example.org;") == 3
    assert empty.dovecot.messages("alice") == []
