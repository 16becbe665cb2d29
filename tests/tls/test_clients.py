"""Client certificates against the running gateway: whom it believes, whom it takes them for, and what it says to the others."""

from __future__ import annotations

import base64
import poplib
import re
import smtplib
import socket
import ssl
import subprocess

import pytest

from mailsec.model.trust import TrustFlags
from tests.peers.gateway import until
from tests.peers.postfix import Postfix, why_not
from tests.tls.conftest import NOW

LETTER = "From: alice@example.org\r\nTo: bob@example.org\r\nSubject: hello\r\nMessage-ID: <{}@test>\r\n\r\nhello\r\n"


def sent(scene, client: smtplib.SMTP, number: str, sender: str = "alice@example.org", recipient: str = "bob@example.org") -> bytes:
    """Send a letter; the octets that arrived."""
    with client:
        client.sendmail(sender, [recipient], LETTER.format(number).replace("alice@example.org", sender))
    wanted = f"<{number}@test>"
    return until(lambda: scene.inbox.of(wanted), 30, number)[0].octets


def unnamed(context: ssl.SSLContext) -> ssl.SSLContext:
    """A client that connects to localhost, and compares no names."""
    context.check_hostname = False
    return context


def refusal(scene, listener: str, holder=None) -> str:
    """The last words to a client that is not welcome."""
    try:
        with scene.client(listener, holder) as client:
            client.ehlo()
            client.mail("alice@example.org")
    except smtplib.SMTPConnectError as error:
        return f"{error.smtp_code} {error.smtp_error!r}"
    except (OSError, smtplib.SMTPException) as error:
        return str(error)
    return ""


def test_certificate_says_who_submits_and_its_addresses_are_theirs(scene):
    message = sent(scene, scene.client("required", scene.alice), "certified")
    assert b"with ESMTPS\r\n" in message  # RFC 3848: no A, for nobody said AUTH
    assert re.search(rb'\tclient certificate "CN=alice@example.org" verified, (89|90) days left\)\r\n', message)
    (event,) = [one for one in scene.events("received") if one.get("message_id") == "<certified@test>"]
    assert event["user"] == "alice@example.org" and event["client_verified"] is True
    assert event["rule"] == "alice"  # a condition over the certificate
    with pytest.raises(smtplib.SMTPSenderRefused) as caught, scene.client("required", scene.alice) as client:
        client.sendmail("bob@example.org", ["bob@example.org"], LETTER)
    assert caught.value.smtp_code == 550


def test_external_is_offered_to_whom_the_certificate_names_and_to_nobody_else(scene):
    with scene.client("optional", scene.alice) as client:
        client.ehlo()
        assert "EXTERNAL" in client.esmtp_features["auth"]
        assert client.docmd("AUTH", "EXTERNAL =")[0] == 235
        assert client.mail("alice@example.org")[0] == 250
    with scene.client("optional", scene.alice) as client:
        client.ehlo()
        other = base64.b64encode(b"bob@example.org").decode()
        assert client.docmd("AUTH", f"EXTERNAL {other}")[0] == 535
    with scene.client("optional") as client:
        client.ehlo()
        assert "EXTERNAL" not in client.esmtp_features["auth"]
        assert client.docmd("AUTH", "EXTERNAL =")[0] == 504
        assert client.mail("alice@example.org")[0] == 530
        client.login("alice", scene.gateway.password)
        assert client.mail("alice@example.org")[0] == 250


def test_fingerprint_gives_addresses_that_the_certificate_does_not_hold(scene):
    sent(scene, scene.client("fingerprints", scene.printer), "printed", sender="printer@example.org")
    assert "554" in refusal(scene, "fingerprints", scene.alice)


def test_no_certificate_where_one_is_required_is_no_session(scene):
    assert refusal(scene, "required")
    assert until(lambda: [one for one in scene.events("tls failed") if "certificate" in one["reason"]], 10, "the reason")


@pytest.mark.parametrize(
    ("who", "why"),
    [("revoked", "revoked"), ("expired", "expired"), ("mail_only", "purpose"), ("foreign", "anchor")],
    ids=["revoked", "expired", "wrong-eku", "from-another-anchor"],
)
def test_client_certificate_that_is(scene, who, why):
    holder = getattr(scene, who)
    said = refusal(scene, "required", holder)
    assert "554" in said and "client certificate not accepted" in said
    (event,) = until(lambda: [one for one in scene.events("tls refused") if one["client_fingerprint"] == holder.fingerprint], 10, "log")
    assert event["reply"] == 554
    # Where it is optional it says nothing: no identity comes of it.
    with scene.client("optional", holder) as client:
        client.ehlo()
        assert "EXTERNAL" not in client.esmtp_features["auth"]
        assert client.mail("alice@example.org")[0] == 530


def test_reader_of_mail_is_told_why_the_certificate_is_not_accepted(scene):
    with pytest.raises(
        poplib.error_proto, match=r"-ERR \[SYS/PERM\] client certificate not accepted: .*issuer CN=Somebody's CA was not found"
    ):
        poplib.POP3_SSL("localhost", scene.gateway.ports["readers"], context=unnamed(scene.context(scene.foreign)), timeout=30)
    reader = poplib.POP3_SSL("localhost", scene.gateway.ports["readers"], context=unnamed(scene.context(scene.alice)), timeout=30)
    assert reader.getwelcome().startswith(b"+OK")
    reader.quit()


def test_authority_of_one_domain_names_nobody_of_another(scene):
    with scene.client("required", scene.impostor) as client:
        client.ehlo()
        assert client.mail("alice@example.org")[0] == 550
        assert client.mail("carol@partner.example")[0] == 250


def test_relaying_needs_a_certificate_and_mail_for_us_does_not(scene):
    with scene.client("relaying") as client:
        client.login("alice", scene.gateway.password)
        client.mail("alice@example.org")
        assert client.rcpt("bob@example.org")[0] == 250
        code, words = client.rcpt("carol@partner.example")
        assert code == 550 and b"client certificate" in words
    with scene.client("relaying", scene.alice) as client:
        client.ehlo()
        client.mail("alice@example.org")
        assert client.rcpt("carol@partner.example")[0] == 250


def test_shared_tenant_is_known_by_the_name_in_its_certificate(scene):
    for holder, welcome in ((scene.mta, True), (scene.alice, False)):
        with smtplib.SMTP("127.0.0.1", scene.gateway.ports["tenant"], local_hostname="x.example", timeout=30) as client:
            assert client.docmd("MAIL", "FROM:<a@example.org>")[0] == 530
            context = scene.context(holder)
            context.check_hostname = False
            try:
                client.starttls(context=context)
                client.ehlo()
                assert client.mail("a@example.org")[0] == 250
                assert welcome
            except smtplib.SMTPException:
                assert not welcome


def test_listener_asks_for_more_than_a_certificate(scene):
    for version, code in ((ssl.TLSVersion.TLSv1_2, 554), (ssl.TLSVersion.TLSv1_3, 250)):
        context = scene.context()
        context.maximum_version = version
        with scene.client("newest", context=context) as client:
            client.ehlo()
            assert client.mail("x@y.example")[0] == code


def test_session_resumed_after_its_certificate_was_prohibited_is_refused(scene):
    gone = scene.ca.issue(addresses=("alice@example.org",), purpose="client", common_name="gone")
    context = scene.context(gone)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its session is there at once
    port = scene.gateway.ports["required"]

    def connect(session=None):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
            context.wrap_socket(raw, server_hostname="gw.example.org", session=session) as sock,
        ):
            return sock.recv(200), sock.session, sock.session_reused

    greeting, session, _ = connect()
    assert greeting.startswith(b"220")
    greeting, _, resumed = connect(session)
    assert resumed and greeting.startswith(b"220")
    with scene.database() as database:
        database.add(gone.der, "gone", trust=TrustFlags.parse("p,,"), at=NOW)
    # The database is asked at most once a second whether it has changed.
    assert until(lambda: (connect(session)[0:1] or (b"",))[0].startswith(b"554"), 20, "the refusal")


def test_client_learns_whose_certificates_are_believed(scene, need):
    done = subprocess.run(
        [need("openssl"), "s_client", "-connect", f"127.0.0.1:{scene.gateway.ports['required']}", "-brief", "-tls1_2", "-trace"],
        input=b"", capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert b"TLS CA" in done.stdout + done.stderr


def test_postfix_and_swaks_with_client_certificates(scene, need, tmp_path_factory):
    """Postfix delivers to the listener of the shared tenant, swaks submits: each is known by what it shows."""
    if reason := why_not():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("postfix")
    directory.chmod(0o755)
    certificate, key = scene.mta.write(directory / "mta")
    main = {
        "relayhost": f"[127.0.0.1]:{scene.gateway.ports['tenant']}",
        "smtp_tls_security_level": "encrypt",
        "smtp_tls_chain_files": f"{key}, {certificate}",
    }
    with Postfix(directory / "postfix", main=main, master="tlsmgr unix - - n 1000? 1 tlsmgr\n") as server:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
            client.sendmail("alice@example.org", ["bob@example.org"], LETTER.format("postfix"))
        message = until(lambda: scene.inbox.of("<postfix@test>"), 60, "Postfix's letter")[0].octets
    assert b'client certificate "CN=mta.example.net" verified' in message
    certificate, key = scene.alice.write(directory / "alice")
    swaks = [
        need("swaks"),
        "--server",
        "127.0.0.1",
        "--port",
        str(scene.gateway.ports["required"]),
        "--tls-on-connect",
        "--tls-cert",
        certificate,
    ]
    swaks += [
        "--tls-key",
        key,
        "--from",
        "alice@example.org",
        "--to",
        "bob@example.org",
        "--header",
        "Message-ID: <swaks@test>",
        "--timeout",
        "30s",
    ]
    done = subprocess.run(swaks, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"=== TLS client subject DN" in done.stdout or b"~> QUIT" in done.stdout
