"""A message that came too early is opened later: by a submission to `reprocess_address`, and by `mailsec reprocess`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from tests.net.pop3.letters import encrypted_for
from tests.peers.gateway import PROJECT, until


def test_forwarded_as_an_attachment_it_comes_back_opened(empty):
    message = encrypted_for(empty.gateway, "alice@example.org", signer=empty.gateway.carol)
    outer = EmailMessage(policy=SMTP)
    outer["From"], outer["To"], outer["Subject"] = "alice@example.org", "again@example.org", "please"
    outer.set_content("see attached")
    # By hand: the email package would write the attached message anew.
    head, _, text = outer.as_bytes().partition(b"Content-Type: text/plain")
    raw = head + b'Content-Type: multipart/mixed; boundary="=f="\r\n\r\n--=f=\r\nContent-Type: text/plain' + text
    raw += b"\r\n--=f=\r\nContent-Type: message/rfc822\r\n\r\n" + message + b"\r\n--=f=--\r\n"
    with empty.gateway.client("submission") as client:
        client.sendmail("alice@example.org", ["again@example.org"], raw)
    until(lambda: empty.dovecot.messages("alice"), 30, "it comes back")
    shown = empty.retrieved()
    assert b"the secret" in shown and b"smime=pass" in shown and b"please" not in shown


def command(empty, path: Path, to: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mailsec", "reprocess", str(path), "--to", to, "-c", str(empty.gateway.configuration), *more]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_the_administrator_does_it_from_a_file(empty, tmp_path):
    path = tmp_path / "message.eml"
    path.write_bytes(encrypted_for(empty.gateway, "alice@example.org").replace(b"\r\n", b"\n"))
    done = command(empty, path, "alice@example.org", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipient"] == "alice@example.org"
    until(lambda: empty.dovecot.messages("alice"), 30, "delivery")
    assert b"the secret" in empty.retrieved()


def test_not_for_an_address_outside_our_domains(empty, tmp_path):
    path = tmp_path / "message.eml"
    path.write_bytes(encrypted_for(empty.gateway, "alice@example.org"))
    for to, code in (("alice@elsewhere.example", 1), ("nobody", 2)):
        done = command(empty, path, to)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert empty.dovecot.messages("alice") == []


def test_explain_tells_whose_mailbox_it_would_be(empty, tmp_path):
    path = tmp_path / "message.eml"
    path.write_bytes(encrypted_for(empty.gateway, "alice@example.org"))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    told = []
    for more in (["--user", "alice", "--listener", "pop3s"], ["--user", "alice", "--listener", "pop3"]):
        words = [sys.executable, "-m", "mailsec", "explain", str(path), "--origin", "mailbox", *more, "--json"]
        words += ["-c", str(empty.gateway.configuration)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    assert told[0]["user"] == "alice" and told[0]["outcomes"][0]["recipients"] == ["alice@example.org"]
    assert told[1]["user"] is None and told[1]["outcomes"][0]["verdict"]["reasons"][0]["code"] == "no-mailbox-owner"
