"""The running gateway asked by Postfix itself: `postmap -q`, access maps and policy delegation of an smtpd."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.peers.gateway import Gateway
from tests.peers.postfix import Postfix, why_not


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[SimpleNamespace]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("socketmap")
    gateway = Gateway(
        directory / "gateway",
        9,
        workers=1,
        listeners=[{"name": "socketmap", "service": "socketmap"}, {"name": "policy", "service": "policy"}],
        plugins={"enabled": ["socketmap"]},
        plugin={"socketmap": {"require_certificate": ["@partner.example"]}},
    )
    maps = f"socketmap:inet:127.0.0.1:{gateway.ports['socketmap']}"
    main = {
        "smtpd_recipient_restrictions": f"check_policy_service inet:127.0.0.1:{gateway.ports['policy']}, "
        f"check_recipient_access {maps}:certificate, reject",
        "smtpd_delay_reject": "no",
        # A client may say there who has logged in, as a server in front would.
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
    }
    try:
        gateway.start()
        with Postfix(directory / "postfix", main=main) as postfix:
            yield SimpleNamespace(gateway=gateway, postfix=postfix, maps=maps)
    finally:
        gateway.close()


def postmap(world, key: str, name: str) -> tuple[int, str]:
    done = subprocess.run(["postmap", "-q", key, f"{world.maps}:{name}"], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout.strip() + done.stderr.strip()


def test_postmap_finds_whoever_has_a_certificate(world):
    assert postmap(world, "alice@example.org", "certificate") == (0, "OK")
    assert postmap(world, "nobody@example.org", "certificate") == (1, "")
    assert postmap(world, "example.org", "certificate") == (1, "")


def test_postmap_is_told_that_there_is_no_such_map(world):
    code, text = postmap(world, "alice@example.org", "certificat")
    assert code == 1 and "there is no map" in text


def test_postmap_asks_many_over_one_connection(world):
    keys = "".join(f"person{number}@example.org\nalice@example.org\n" for number in range(50))
    done = subprocess.run(
        ["postmap", "-q", "-", f"{world.maps}:certificate"], input=keys, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["alice@example.org\tOK"] * 50


def test_smtpd_asks_the_policy_and_the_map(world):
    with smtplib.SMTP("127.0.0.1", world.postfix.port, timeout=30) as client:
        client.helo("client.example")
        client.mail("eve@example.net")
        code, text = client.rcpt("dave@partner.example")
        assert code == 554 and b"there is no certificate to encrypt for this recipient" in text
        assert client.rcpt("nobody@example.org")[0] == 554
        assert client.rcpt("alice@example.org")[0] == 250
    assert "problem" not in world.postfix.log.read_text()


@pytest.mark.parametrize(("sender", "taken"), [("alice@example.org", True), ("bob@example.org", False), ("eve@example.net", False)])
def test_smtpd_asks_whether_this_user_may_send_as_that_address(world, sender, taken):
    with smtplib.SMTP("127.0.0.1", world.postfix.port, timeout=30) as client:
        client.ehlo("client.example")
        assert client.docmd("XCLIENT LOGIN=alice")[0] == 220
        client.ehlo("client.example")
        assert client.mail(sender)[0] == 250
        code, text = client.rcpt("alice@example.org")
    assert (code == 250) is taken, text
    if taken:
        assert code == 250, text
    else:
        assert code == 554 and b"alice" in text, text
