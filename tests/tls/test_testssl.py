"""testssl.sh, an independent judge: no weakness above LOW on any listener with the default profile."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path

import pytest

from tests.peers.gateway import Gateway
from tests.peers.inbox import Inbox
from tests.tls.issuing import Issuer

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)

PROTOCOLS = {
    # name: (listener settings, options of testssl.sh)
    "smtp-starttls": ({"origin": "internet", "tls": "starttls"}, ["--starttls", "smtp"]),
    "smtps": ({"origin": "submission", "tls": "implicit"}, []),
    "pop3-stls": (
        {"protocol": "pop3", "origin": "mailbox", "tls": "starttls-required", "upstream": "pop3s://mail.example.org"},
        ["--starttls", "pop3"],
    ),
    "pop3s": ({"protocol": "pop3", "origin": "mailbox", "tls": "implicit", "upstream": "pop3s://mail.example.org"}, []),
}
"""One line for each kind of listener."""

ABOVE_LOW = {"MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"}
OF_THIS_MACHINE = {
    "cert_trust", "cert_chain_of_trust", "cert_caIssuers", "DNS_CAArecord", "cert_revocation", "cert_crlDistributionPoints", "OCSP_stapling",
    "sessionresumption_ticket", "sessionresumption_ID", "overall_grade", "grade_cap_reason_1",
    "engine_problem", "scanProblem", "old_fart", "optimal_proto", "clientsimulation",
}  # fmt: skip
"""Findings about an authority of the tests, the resolver, and testssl's own openssl: nothing that the listener does."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with Inbox() as inbox:
        files = tmp_path_factory.mktemp("certificate")
        Issuer("testssl", at=NOW).issue("gw.example.org", "localhost", ends=dt.timedelta(days=300)).write(files)
        listeners = [{"name": name, "certificate": f"file:{files}", **settings} for name, (settings, _) in PROTOCOLS.items()]
        gateway = Gateway(tmp_path_factory.mktemp("testssl") / "gateway", inbox.port, workers=1, listeners=listeners)
        try:
            gateway.start()
            yield gateway
        finally:
            gateway.close()


@pytest.mark.interop
@pytest.mark.timeout(900)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_weakness_above_low(gateway, need, tmp_path: Path, protocol):
    program = need("testssl", "testssl.sh")
    report = tmp_path / "report.json"
    command = [program, "--jsonfile", str(report), "--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1", "--nodns", "none"]
    command += ["--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--vulnerable"]
    command += [*PROTOCOLS[protocol][1], f"localhost:{gateway.ports[protocol]}"]
    subprocess.run(command, capture_output=True, timeout=900, check=False, stdin=subprocess.DEVNULL)
    findings = json.loads(report.read_text())
    # It looked at all: the known bad and the known good.
    seen = {finding["id"] for finding in findings}
    assert {"TLS1", "TLS1_2", "TLS1_3", "heartbleed", "ROBOT", "secure_client_renego", "SWEET32", "LUCKY13"} <= seen, sorted(seen)
    bad = [finding for finding in findings if finding["severity"] in ABOVE_LOW and finding["id"].split(" ")[0] not in OF_THIS_MACHINE]
    assert not bad, bad
    assert {finding["finding"] for finding in findings if finding["id"] in ("TLS1_2", "TLS1_3")} <= {"offered", "offered with final"}
