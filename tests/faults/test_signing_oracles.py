"""Signing oracles at the running gateway: whoever asks it to sign for somebody else is refused, and nothing of it leaves or stays.

On `submission` alice has logged in; on `trusted` our own MTA says MAIL FROM; on `internet` anybody says anything.
"""

from __future__ import annotations

import re
import smtplib
import subprocess

import pytest

from mailsec.app.demo.letters import signed
from tests.faults.sender import letter
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@partner.example"

NOT_HERS = {
    "from-of-another": f"From: {BOB}\r\n",
    "from-of-a-stranger": f"From: {CAROL}\r\n",
    "two-from-fields": f"From: {ALICE}\r\nFrom: {BOB}\r\n",
    "two-from-fields-of-hers": f"From: {ALICE}\r\nFrom: {ALICE}\r\n",
    "two-addresses-in-from": f"From: {ALICE}, {BOB}\r\n",
    "address-in-the-display-name": f'From: "{ALICE}" <{BOB}>\r\n',
    "address-in-a-comment": f"From: {BOB} ({ALICE})\r\n",
    "group-in-from": f"From: all: {ALICE}, {BOB};\r\n",
    "encoded-from": f"From: =?utf-8?q?{ALICE.replace('@', '=40')}?= <{BOB}>\r\n",
    "folded-second-from": f"From: {ALICE},\r\n {BOB}\r\n",
    "from-with-a-blank": f"From : {BOB}\r\n",
    "from-in-other-letters": f"FROM: {ALICE}\r\nfrom: {BOB}\r\n",
    "sender-of-another": f"From: {ALICE}\r\nSender: {BOB}\r\n",
    "resent-from-of-another": f"Resent-From: {BOB}\r\nFrom: {ALICE}\r\n",
    "resent-sender-of-another": f"Resent-Sender: {BOB}\r\nResent-From: {ALICE}\r\nFrom: {ALICE}\r\n",
    "no-from": "",
    "empty-from": "From:\r\n",
    "no-address-in-from": "From: alice\r\n",
    "route-in-from": f"From: <@evil.example:{BOB}>\r\n",
}


@pytest.fixture(scope="module")
def inbox():
    with Inbox() as inbox:
        yield inbox


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, inbox):
    one = Gateway(tmp_path_factory.mktemp("oracles") / "gateway", inbox.port)
    try:
        yield one.start()
    finally:
        one.close()


def send(gateway, listener: str, mail_from: str, octets: bytes, recipient: str = CAROL) -> tuple[int, bytes]:
    """The last reply to one message: to MAIL, RCPT or DATA."""
    with gateway.client(listener) as client:
        client.ehlo_or_helo_if_needed()
        for reply in (lambda: client.mail(mail_from), lambda: client.rcpt(recipient), lambda: client.data(octets)):
            try:
                code, text = reply()
            except smtplib.SMTPDataError as error:
                return error.smtp_code, error.smtp_error
            if code >= 400:
                return code, text
    return code, text


def message(header: str, mark: str) -> bytes:
    return f"{header}To: {CAROL}\r\nSubject: pay\r\nMessage-ID: {mark}\r\n\r\nPay him.\r\n".encode()


def is_signed(octets: bytes) -> bool:
    return b"application/pkcs7-signature" in octets or b"application/pkcs7-mime" in octets


@pytest.mark.parametrize("listener", ["submission", "trusted"])
@pytest.mark.parametrize("name", NOT_HERS)
def test_header_with_a_name_that_is_not_hers_is_refused(gateway, inbox, listener, name):
    mark = f"<{name}-{listener}@oracle.example>"
    code, text = send(gateway, listener, ALICE, message(NOT_HERS[name], mark))
    assert code in (550, 554) and re.match(rb"5\.(7\.1|6\.0)", text), (code, text)
    # the reply does not say whose address that is
    assert b"bob" not in text and b"carol" not in text
    assert not [entry for entry in gateway.waiting() if entry.message_id == mark]
    assert not inbox.of(mark)


def test_mail_from_of_another_is_refused_on_submission(gateway):
    assert send(gateway, "submission", BOB, message(f"From: {ALICE}\r\n", "<x@oracle.example>"))[0] == 550
    assert send(gateway, "submission", CAROL, message(f"From: {ALICE}\r\n", "<x@oracle.example>"))[0] == 550


def test_mail_from_a_and_from_b_on_trusted_is_refused_though_both_may_send_there(gateway):
    code, text = send(gateway, "trusted", ALICE, message(f"From: {BOB}\r\n", "<ab@oracle.example>"))
    assert code == 550 and text.startswith(b"5.7.1")


def test_mail_from_a_stranger_on_trusted_is_refused(gateway):
    assert send(gateway, "trusted", CAROL, message(f"From: {ALICE}\r\n", "<s@oracle.example>"))[0] == 550


def test_null_mail_from_on_trusted_is_relayed_and_never_signed(gateway, inbox):
    mark = "<null@oracle.example>"
    assert send(gateway, "trusted", "", message(f"From: {ALICE}\r\n", mark))[0] == 250
    (delivered,) = until(lambda: inbox.of(mark))
    assert not is_signed(delivered.octets)


@pytest.mark.parametrize("mail_from", [ALICE, CAROL, ""])
def test_forged_own_domain_from_on_internet_is_never_signed(gateway, inbox, mail_from):
    mark = f"<forged-{mail_from or 'null'}-x>"
    assert send(gateway, "internet", mail_from, message(f"From: {ALICE}\r\n", mark), BOB)[0] == 250
    (delivered,) = until(lambda: inbox.of(mark))
    assert not is_signed(delivered.octets)
    assert delivered.octets.endswith(message(f"From: {ALICE}\r\n", mark))
    assert b"smime=none" in delivered.octets and b"smime=pass" not in delivered.octets


def test_login_on_internet_is_not_offered_and_signs_nothing(gateway):
    with gateway.client("internet") as client:
        client.starttls()
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH PLAIN AGFsaWNlAHg=")[0] in (500, 502, 503)


def test_signature_of_a_stranger_does_not_pass_for_hers(gateway, inbox, need, tmp_path):
    """A message that Carol has signed, sent by alice under her own From: it counts as unsigned, and is signed by alice."""
    mark = "<resigned@oracle.example>"
    octets = signed(message(f"From: {ALICE}\r\n", mark), gateway.stranger)
    code, text = send(gateway, "submission", ALICE, octets)
    assert code == 250, text
    (delivered,) = until(lambda: inbox.of(mark))
    verify = [
        need("openssl"),
        "cms",
        "-verify",
        "-CAfile",
        str(gateway.ca_file),
        "-out",
        "/dev/null",
        "-certsout",
        str(tmp_path / "signer.pem"),
    ]
    done = subprocess.run(verify, input=delivered.octets, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("listener", "sender"), [("submission", ALICE), ("trusted", ALICE), ("trusted", BOB)])
def test_what_is_hers_is_signed_for_her_and_for_nobody_else(gateway, inbox, need, tmp_path, listener, sender):
    octets = letter(sender, CAROL)
    mark = re.search(rb"Message-ID: (\S+)", octets)[1].decode()
    assert send(gateway, listener, sender, octets)[0] == 250
    (delivered,) = until(lambda: inbox.of(mark))
    openssl, signer = need("openssl"), tmp_path / "signer.pem"
    verify = [openssl, "cms", "-verify", "-CAfile", str(gateway.ca_file), "-out", "/dev/null", "-signer", str(signer)]
    done = subprocess.run(verify, input=delivered.octets, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    names = subprocess.run([openssl, "x509", "-in", str(signer), "-noout", "-email"], capture_output=True, text=True, check=True).stdout
    assert names.split() == [sender]
