"""A plugin of the house in a gateway that runs: it sees the TLS session, its failures are counted, and its leak is named."""

from __future__ import annotations

import contextlib
import json
import shutil
import smtplib
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.gateway import Gateway, namespace_why_not, until
from tests.peers.postfix import free_port


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    if reason := namespace_why_not():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("house")
    (place / "plugins").mkdir()
    shutil.copy(Path(__file__).with_name("house_plugin.py"), place / "plugins" / "house.py")
    made = Gateway(
        place / "gateway",
        9,
        workers=1,
        plugins={"enabled": ["house"], "path": [str(place / "plugins")]},
        metrics={"listen": f"127.0.0.1:{free_port()}"},
    )
    made.seen = place / "plugins" / "seen.json"  # type: ignore[attr-defined]
    try:
        # Few descriptors, so that few are many.
        yield made.start(mount="ulimit -n 200")
    finally:
        made.close()


def send(gateway: Gateway, subject: str, listener: str = "trusted") -> int:
    """The code of the reply to a message."""
    with gateway.client(listener) as client, contextlib.suppress(smtplib.SMTPDataError):
        client.sendmail("alice@example.org", ["carol@partner.example"], f"From: alice@example.org\r\nSubject: {subject}\r\n\r\nx\r\n")
        return 250
    return 451


def metric(gateway: Gateway, line: str) -> bool:
    address = tomllib.loads(gateway.configuration.read_text())["metrics"]["listen"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        return line in answer.read().decode().splitlines()


def test_a_plugin_sees_the_tls_session_of_a_message(gateway):
    assert send(gateway, "look", "submission") == 250
    session = json.loads(gateway.seen.read_text())
    assert session["version"] == "TLSv1.3" and session["cipher"].startswith("TLS_") and session["resumed"] is False
    assert send(gateway, "look") == 250
    assert json.loads(gateway.seen.read_text()) is None, "no TLS on that listener"


def test_failures_of_a_plugin_are_counted_and_where_it_rests_is_shown(gateway):
    assert send(gateway, "fail") == 451
    until(lambda: metric(gateway, 'mailsec_plugin_failures_total{hook="check_message",plugin="house"} 1.0'), 30, "the failure")
    assert not metric(gateway, 'mailsec_plugins_resting{plugin="house"} 1.0')
    until(lambda: send(gateway, "fail") == 451 and metric(gateway, 'mailsec_plugins_resting{plugin="house"} 1.0'), 60, "its rest")


def test_a_plugin_that_leaks_descriptors_is_named_while_mail_still_flows(gateway):
    (pid,) = gateway.pids()

    def leak() -> list[Any]:
        told = gateway._events("descriptors run out")
        # However fast this machine is: up to the alarm, and, where nobody had looked at who opens before it, a little further for the name.
        if len(list(Path(f"/proc/{pid}/fd").iterdir())) < (180 if told else 165):
            send(gateway, "leak")
        return [event for event in told if event.get("plugin")]

    event = until(leak, 120, "the name of who leaks")[0]
    assert event["plugin"] == "house" and event["limit"] == 200 and event["descriptors"] < 200
    assert send(gateway, "fine") == 250
