"""Metrics: counted by workers, added up by the supervisor, shown on loopback; and the dashboard that draws them."""

from __future__ import annotations

import json
import re
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mailsec.app.config import load_configuration
from mailsec.app.config.problems import ConfigurationErrors
from mailsec.app.metrics.catalogue import CATALOGUE
from mailsec.app.metrics.events import MetricsPlugin
from mailsec.app.metrics.measures import MOST, Measures
from mailsec.app.metrics.merged import Merged
from mailsec.model.verdict import Event
from tests.peers.gateway import Gateway, server_certificate, until
from tests.peers.inbox import Inbox
from tests.peers.postfix import free_port

PROJECT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 27, tzinfo=UTC)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# -- one gateway that runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("metrics")
    both = directory / "server.pem"
    both.write_bytes(b"".join(server_certificate()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with Inbox() as box, Inbox(tls_context=context) as encrypted:
        hop = f"smtp://localhost:{encrypted.port}"
        routes = {
            "verified.example": {"to": hop, "tls": "verified"},
            "required.example": {"to": hop, "tls": "required"},
            "wrong.example": {"to": hop, "tls": "verified", "server_name": "other.example"},
            "clear.example": {"to": f"smtp://[127.0.0.1]:{box.port}", "tls": "required"},
        }
        gateway = Gateway(
            directory / "gateway",
            box.port,
            workers=2,
            metrics={"listen": f"127.0.0.1:{free_port()}"},
            relay={"ca_file": "ca.pem", "routes": routes},
        )
        gateway.metrics = load_configuration(str(gateway.configuration)).metrics.listen  # type: ignore[attr-defined]
        gateway.start()
        yield gateway
        gateway.close()


def fetched(gateway: Gateway, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{gateway.metrics}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_what_all_workers_did_is_added_up_and_stays_when_one_dies(running: Gateway):
    with running.client("submission") as client:
        for _ in range(3):
            client.sendmail("alice@example.org", ["bob@example.net"], "From: alice@example.org\r\nSubject: x\r\n\r\nbody\r\n")
    with running.client("internet") as client:
        client.sendmail("a@example.net", ["alice@example.org"], "From: a@example.net\r\n\r\nbody\r\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@example.net", ["b@example.net"], "From: a@example.net\r\n\r\nbody\r\n")

    def now() -> dict:
        return samples(fetched(running, "/metrics")[1])

    sent = ("mailsec_messages_total", (("action", "deliver"), ("origin", "submission")))
    until(lambda: now().get(sent) == 3, 30, "the workers' next answers")
    until(lambda: now().get(("mailsec_deliveries_total", (("result", "delivered"),)), 0) >= 4, 30, "deliveries")
    # The queue is counted beside the answer, and told with the next one.
    until(lambda: ("mailsec_queue_messages", (("state", "held"),)) in now(), 30, "the first count of the queue")
    seen = now()
    assert seen["mailsec_messages_total", (("action", "deliver"), ("origin", "internet"))] == 1
    assert seen["mailsec_processing_seconds_count", (("origin", "submission"),)] == 3
    assert seen["mailsec_processing_seconds_bucket", (("le", "+Inf"), ("origin", "submission"))] == 3
    assert seen["mailsec_delivery_seconds_count", ()] >= 4
    assert seen["mailsec_protected_total", (("protection", "signed"),)] == 3
    assert seen["mailsec_key_uses_total", (("result", "good"), ("store", "database"), ("usage", "sign"))] == 3
    assert seen["mailsec_verdicts_total", (("verdict", "none"),)] == 1
    assert any(name == "mailsec_tls_sessions_total" and dict(labels)["version"] == "TLSv1.3" for name, labels in seen)
    assert seen["mailsec_certificate_days_left", (("certificate", "Server-Cert"),)] > 30
    assert seen["mailsec_queue_messages", (("state", "held"),)] == 0
    assert seen["mailsec_workers", (("state", "running"),)] == 2 and seen["mailsec_worker_resident_octets", ()] > 40_000_000
    deaths = running.deaths()
    running.kill(supervisor=False)
    until(lambda: running.deaths() == deaths + 2, 30, "their deaths")
    assert now()[sent] == 3 and now()["mailsec_worker_deaths_total", ()] == 2
    until(lambda: now()["mailsec_workers", (("state", "running"),)] == 2, 60, "the replacements")


def test_tls_with_next_hops_is_counted_by_what_it_came_to(running: Gateway):
    with running.client("submission") as client:
        for domain in ("verified", "required", "wrong", "clear"):
            client.sendmail("alice@example.org", [f"bob@{domain}.example"], "From: alice@example.org\r\nSubject: x\r\n\r\nbody\r\n")

    def now(name: str, **labels: str) -> float:
        found = samples(fetched(running, "/metrics")[1])
        return sum(value for (one, its), value in found.items() if one == name and labels.items() <= dict(its).items())

    def sessions(**labels: str) -> float:
        return now("mailsec_outgoing_sessions_total", **labels)

    until(lambda: sessions(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", peer="verified") == 1, 60, "the verified one")
    until(lambda: sessions(version="TLSv1.3", peer="unverified") == 1, 60, "the one that may be anybody")
    # Somebody else than who is demanded, and one that offers no TLS: each attempt counts.
    until(lambda: now("mailsec_outgoing_tls_failures_total", demanded="verified") >= 1, 60, "a wrong name")
    until(lambda: now("mailsec_outgoing_tls_failures_total", demanded="required") >= 1, 60, "one without TLS")
    assert sessions(version="TLSv1.3") == 2, "nobody else took mail"


def test_each_use_of_a_key_has_a_line_that_says_for_whom(running: Gateway):
    used = running._events("key used")
    assert used and used[0]["usage"] == "sign" and used[0]["address"] == "alice@example.org" and used[0]["key"]


def test_health_is_told_and_nothing_else_is_answered(running: Gateway):
    assert fetched(running, "/healthz")[0] == 200
    until(lambda: fetched(running, "/readyz")[0] == 200, 60, "ready")
    assert json.loads(fetched(running, "/readyz")[1])["state"] == "running"
    assert fetched(running, "/")[0] == 404 and fetched(running, "/../etc/passwd")[0] == 404


@pytest.mark.parametrize(
    "octets",
    [
        b"GET /metrics\r\n\r\n",
        b"EHLO x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 8000,
        b"GET /metrics HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n" * 50,
    ],
)
def test_attack_whatever_is_sent_gets_one_short_answer_and_the_end(running: Gateway, octets: bytes):
    host, _, port = running.metrics.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(octets)
        answer = b""
        try:
            while more := line.recv(65536):
                answer += more
        except ConnectionResetError:
            pass
    assert answer.count(b"HTTP/1.1 ") <= 1 and (b"HTTP/1.1 4" in answer or octets.startswith(b"GET /metrics HTTP/1.1\r\n\r\n"))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "localhost\r\nHost: evil.example"])
def test_attack_dns_rebinding_shows_no_page_of_the_web_what_we_measure(running: Gateway, host: str):
    address, _, port = running.metrics.rpartition(":")

    def answer(name: str) -> bytes:
        with socket.create_connection((address, int(port)), timeout=20) as line:
            line.sendall(f"GET /metrics HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            return line.makefile("rb").readline()

    assert answer(host).startswith(b"HTTP/1.1 421")
    assert all(answer(name).startswith(b"HTTP/1.1 200") for name in ("localhost", f"127.0.0.1:{port}", f"[::1]:{port}"))


def test_attack_silent_connections_keep_nobody_from_hearing_that_we_are_well(running: Gateway):
    host, _, port = running.metrics.rpartition(":")
    silent = [socket.create_connection((host, int(port)), timeout=20) for _ in range(100)]
    assert fetched(running, "/healthz")[0] == 200
    for line in silent:
        line.close()


# -- parts ----------------------------------------------------------------------------------------------------------------------


def plugin() -> tuple[MetricsPlugin, Measures]:
    measures = Measures()
    return MetricsPlugin(measures, lambda: NOW + timedelta(seconds=0.02)), measures


def merged(*snapshots: dict) -> Merged:
    total = Merged(dict)
    for worker, snapshot in enumerate(snapshots):
        total.update(worker, json.loads(json.dumps(snapshot)))
    return total


def test_gauges_are_merged_as_their_meaning_wants_and_leave_with_their_worker():
    first, second = Measures(), Measures()
    for measures, connections, days, oldest in ((first, 3, 20.0, 5.0), (second, 4, 10.0, 9.0)):
        measures.look("mailsec_connections", {(): connections})
        measures.look("mailsec_certificate_days_left", {("Server-Cert",): days})
        measures.look("mailsec_queue_oldest_seconds", {(): oldest})
        measures.count("mailsec_logins_refused_total")
        measures.observe("mailsec_dns_seconds", 0.02)
    total = merged(first.snapshot(), second.snapshot())
    assert total.value("mailsec_connections") == {(): 7}
    assert total.value("mailsec_certificate_days_left") == {("Server-Cert",): 10}
    assert total.value("mailsec_queue_oldest_seconds") == {(): 9}
    total.departed(1)
    assert total.value("mailsec_connections") == {(): 3}
    assert total.value("mailsec_logins_refused_total") == {(): 2}
    total.update(2, second.snapshot())
    assert total.value("mailsec_logins_refused_total") == {(): 3}
    found = samples(total.text().decode())
    assert found["mailsec_dns_seconds_count", ()] == 3 and found["mailsec_dns_seconds_bucket", (("le", "0.01"),)] == 0


def test_attack_a_worker_that_was_taken_over_can_only_lie_about_numbers():
    total = merged(
        {
            "mailsec_nothing_total": [[[], 1]],
            "mailsec_connections": [[["a"], 1]],
            "mailsec_logins_refused_total": [[[], "1"], [[], True], [[], float("inf")], "x", [[]], [[], None]],
            "mailsec_dns_seconds": [[[], [1, 2]], [[], 5]],
            "mailsec_verdicts_total": [[['x"}\nforged 1\n'], 1], [[1], 1]],
        }
    )
    total.update("more", ["not", "a", "snapshot"])
    total.update("more", {"mailsec_verdicts_total": [[[f"v{number}"], 1] for number in range(100_000)]})
    found = samples(total.text().decode())
    assert not any(name in ("forged", "mailsec_nothing_total") for name, _ in found)
    assert sum(1 for name, _ in found if name == "mailsec_verdicts_total") < 1000
    assert found["mailsec_connections", ()] == 0


def test_attack_words_from_outside_do_not_become_endless_series():
    tells, measures = plugin()
    for number in range(5 * MOST):
        tells.record_event(Event("tls session", NOW, {"tls_version": "TLSv1.3", "tls_cipher": f"cipher-{number}"}))
        tells.record_event(Event("received", NOW, {"origin": "internet", "action": f"token:{number}", "size": 1}))
    assert len(measures.snapshot()["mailsec_tls_sessions_total"]) <= MOST + 1
    assert measures.snapshot()["mailsec_messages_total"] == [[["internet", "wait"], 5 * MOST]]


def test_promise_6_no_label_holds_an_address_or_a_subject():
    tells, measures = plugin()
    fields = {
        "origin": "submission",
        "action": "deliver",
        "size": 9,
        "reverse_path": "alice@example.org",
        "recipients": ["bob@example.net"],
    }
    tells.record_event(Event("received", NOW, fields | {"user": "alice", "peer": "192.0.2.1", "message_id": "<1@x>"}))
    tells.record_event(Event("key used", NOW, {"key": "alice", "address": "alice@example.org", "usage": "sign", "store": "database"}))
    tells.record_event(Event("login refused", NOW, {"peer": "192.0.2.1"}))
    text = merged(measures.snapshot()).text().decode()
    assert "alice" not in text and "192.0.2.1" not in text and "example.net" not in text


def test_every_metric_has_a_sentence_a_kind_and_lawful_names():
    for name, metric in CATALOGUE.items():
        assert (re.fullmatch(r"mailsec_[a-z_]+", name) and metric.help[0].isupper()) or metric.help[0].isdigit()
        assert name.endswith("_total") == (metric.kind == "counter")
        assert (metric.kind == "histogram") == bool(metric.buckets) and list(metric.buckets) == sorted(metric.buckets)


def test_the_dashboard_draws_every_metric_and_no_other():
    dashboard = json.loads((PROJECT / "contrib/grafana/mailsec.json").read_text())
    drawn = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"mailsec_[a-z_]+", " ".join(drawn))}
    assert names == set(CATALOGUE)
    for name, labels in re.findall(r"by \(([a-z_, ]+)\) \(\w*\(?(mailsec_[a-z_]+)", " ".join(drawn)):
        metric = CATALOGUE[re.sub(r"_bucket$", "", labels)]
        assert {one for one in name.split(", ") if one != "le"} <= set(metric.labels), (name, labels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_page_lists_every_metric():
    page = (PROJECT / "docs/running.md").read_text()
    for name, metric in CATALOGUE.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{name}` | {labels} | {metric.help} |" in page, name


def test_strangers_never_reach_it(tmp_path):
    text = (PROJECT / "conf/mailsec.toml").read_text()
    for address, words in (
        ("0.0.0.0:9467", "not on this machine only"),
        ("192.0.2.1:9467", "not on this machine only"),
        ("x", "HOST:PORT"),
    ):
        changed = re.sub(r"\n\[metrics\]\n", f'\n[metrics]\nlisten = "{address}"\n', text)
        assert changed != text
        (tmp_path / "mailsec.toml").write_text(changed)
        with pytest.raises(ConfigurationErrors) as raised:
            load_configuration(str(tmp_path / "mailsec.toml"))
        assert words in str([one.message for one in raised.value.problems])
