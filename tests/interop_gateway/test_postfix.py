"""The running gateway in front of Postfix, and behind it: what mailsec signs survives Postfix, and what Postfix refuses is reported."""

from __future__ import annotations

import re
import subprocess
from types import SimpleNamespace

import pytest

from tests.faults.sender import letter
from tests.net.relay_peer import Peer
from tests.peers.gateway import Gateway, until
from tests.peers.postfix import Postfix, free_port, why_not

ALICE, CAROL = "alice@example.org", "carol@partner.example"

BODIES = {
    "dots": b".\r\n..\r\n.x\r\n...\r\n",
    "from-lines": b"From here on\r\nFrom there\r\n",
    "trailing-blanks": b"a  \r\nb\t\r\n \r\n",
    "8-bit": "Grüße, 你好\r\n".encode() * 40,
    "long-lines": b"x" * 990 + b"\r\n" + b"y" * 997 + b"\r\n",
    "no-line-end": b"end",
    "empty": b"",
    "one-mebibyte": b"0123456789abcdef" * 4 + b"\r\n" + b"z" * 70 + b"\r\n" * 12_000,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("postfix")
    store = Peer()
    main = {
        "relayhost": f"[127.0.0.1]:{store.port}",
        "smtpd_recipient_restrictions": "check_recipient_access inline:{{never@partner.example=REJECT}}, permit",
    }
    with Postfix(directory, main=main) as postfix:
        gateway = Gateway(directory / "gateway", postfix.port)
        try:
            gateway.start()
            yield SimpleNamespace(gateway=gateway, store=store, postfix=postfix)
        finally:
            gateway.close()
            store.close()


def stored(world, mark: bytes) -> bytes:
    """What arrived behind Postfix with that Message-ID."""
    return until(
        lambda: [octets for _, _, octets in list(world.store.messages) if mark in octets.partition(b"\r\n\r\n")[0]], 60, repr(mark)
    )[0]


@pytest.mark.parametrize("name", BODIES)
def test_what_we_sign_is_intact_behind_postfix(world, need, name):
    octets = letter(ALICE, CAROL, body=BODIES[name])
    mark = re.search(rb"Message-ID: (\S+)", octets)[1]
    with world.gateway.client("trusted") as client:
        assert client.sendmail(ALICE, [CAROL], octets, ["BODY=8BITMIME"]) == {}
    delivered = stored(world, mark)
    command = [need("openssl"), "cms", "-verify", "-CAfile", str(world.gateway.ca_file), "-out", "/dev/null"]
    done = subprocess.run(command, input=delivered, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_arrives_unsigned_passes_both_octet_for_octet(world):
    octets = letter(CAROL, "bob@example.org", body=b"".join(BODIES[name] for name in ("dots", "from-lines", "trailing-blanks", "8-bit")))
    with world.gateway.client() as client:
        assert client.sendmail(CAROL, ["bob@example.org"], octets, ["BODY=8BITMIME"]) == {}
    assert stored(world, re.search(rb"Message-ID: (\S+)", octets)[1]).endswith(octets)


def test_what_postfix_refuses_is_reported_and_the_other_recipient_gets_it(world):
    octets = letter(ALICE, "never@partner.example")
    with world.gateway.client("trusted") as client:
        assert client.sendmail(ALICE, ["never@partner.example", CAROL], octets) == {}
    stored(world, re.search(rb"Message-ID: (\S+)", octets)[1])
    report = until(lambda: [octets for mail, _, octets in list(world.store.messages) if b"rfc822; never@partner.example" in octets], 60)[0]
    assert b"Action: failed" in report and b"554 5.7.1" in report and b"body" not in report.partition(b"text/rfc822-headers")[2]


def test_postfix_hands_mail_to_the_gateway_and_takes_it_back_signed(need, tmp_path):
    """The usual place: a content filter beside Postfix, in by `trusted`, back by another port."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    store, back = Peer(), free_port()
    gateway = Gateway(tmp_path / "gateway", back)
    (tmp_path / "postfix").mkdir()
    master = (
        f"127.0.0.1:{back} inet n - n - 10 smtpd -o content_filter= -o smtpd_client_restrictions= -o smtpd_recipient_restrictions=permit\n"
    )
    main = {"content_filter": f"smtp:[127.0.0.1]:{gateway.ports['trusted']}", "relayhost": f"[127.0.0.1]:{store.port}"}
    with Postfix(tmp_path / "postfix", main=main, master=master) as postfix:
        try:
            gateway.start()
            octets = letter(ALICE, CAROL)
            mark = re.search(rb"Message-ID: (\S+)", octets)[1]
            import smtplib

            with smtplib.SMTP("127.0.0.1", postfix.port, timeout=20) as client:
                assert client.sendmail(ALICE, [CAROL], octets) == {}
            delivered = stored(SimpleNamespace(store=store), mark)
            command = [need("openssl"), "cms", "-verify", "-CAfile", str(gateway.ca_file), "-out", "/dev/null"]
            assert subprocess.run(command, input=delivered, capture_output=True, check=False).returncode == 0
            assert delivered.partition(b"\r\n\r\n")[0].count(b"Received: ") == 3
        finally:
            gateway.close()
            store.close()
