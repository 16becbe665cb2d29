"""With real servers: `mailsec smimea` writes the record, nsd serves the signed zone, unbound validates, `mailsec cert find` believes it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.dnssec
import dns.flags
import dns.message
import dns.query
import dns.rdatatype
import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mailsec.keys.files import pem
from mailsec.testing.authority import Authority
from mailsec_smimea.names import owner_name
from mailsec_smimea.records import record_for

NEEDED = ("nsd", "unbound")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

pytestmark = pytest.mark.skipif(
    not all(shutil.which(one, path=ENVIRONMENT["PATH"]) for one in NEEDED), reason="nsd or unbound is not installed"
)

NSD = """
server:
  ip-address: 127.0.0.1
  port: {port}
  username: ""
  pidfile: ""
  database: ""
  zonesdir: "{place}"
  xfrdfile: ""
  xfrdir: "{place}"
  zonelistfile: "{place}/zone.list"
  server-count: 1
  logfile: "{place}/nsd.log"
remote-control:
  control-enable: no
{zones}
"""
UNBOUND = """
server:
  interface: 127.0.0.1
  port: {port}
  username: ""
  chroot: ""
  directory: "{place}"
  pidfile: ""
  use-syslog: no
  logfile: "{place}/unbound.log"
  do-not-query-localhost: no
  num-threads: 1
  module-config: "validator iterator"
{anchors}
remote-control:
  control-enable: no
{zones}
"""
MAILSEC = """
[gateway]
hostname = "gw.example.org"
domains = ["example.org"]
[database]
location = "{place}/certificates.db"
[[listener]]
address = "127.0.0.1:1"
origin = "internet"
[relay]
next_hop = "smtp://[127.0.0.1]:2"
[revocation]
mode = "off"
[plugins]
enabled = ["smimea"]
[plugin.smimea]
resolver = "127.0.0.1:{port}"
"""


def mailsec(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "mailsec", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def free_port() -> int:
    """One that is free for UDP and for TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


def sign(zone: dns.zone.Zone) -> str:
    """Sign it, and return its DNSKEY as a trust anchor."""
    key = ec.generate_private_key(ec.SECP256R1())
    dnskey = dns.dnssec.make_dnskey(key.public_key(), dns.dnssec.Algorithm.ECDSAP256SHA256, flags=257)
    now = datetime.now(UTC)
    with zone.writer() as writer:
        dns.dnssec.sign_zone(
            zone,
            writer,
            keys=[(key, dnskey)],
            add_dnskey=True,
            dnskey_ttl=300,
            inception=now - timedelta(hours=1),
            expiration=now + timedelta(days=7),
        )
    return f"{zone.origin} 300 IN DNSKEY {dnskey.to_text()}"


def answers(port: int, name: str, process: subprocess.Popen) -> bool:
    """Ask until there is an answer; True where it is one that was validated."""
    query = dns.message.make_query(name, "SOA", want_dnssec=False, flags=dns.flags.RD | dns.flags.AD)
    for _ in range(100):
        assert process.poll() is None, process.args
        try:
            response = dns.query.udp(query, "127.0.0.1", timeout=0.3, port=port)
        except (dns.exception.Timeout, OSError):
            continue
        if response.answer:
            return bool(response.flags & dns.flags.AD)
    raise AssertionError("no answer")


@dataclass
class World:
    configuration: str
    authority: Authority

    def find(self, address: str) -> tuple[int, dict]:
        code, out, err = mailsec("cert", "find", address, "--explain", "--json", "-c", self.configuration)
        assert out, err
        return code, json.loads(out)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    place: Path = tmp_path_factory.mktemp("dns")
    authority = Authority(at=datetime.now(UTC) - timedelta(days=1))
    head = "@ 300 IN SOA ns hostmaster 1 3600 600 86400 300\n@ 300 IN NS ns\nns 300 IN A 127.0.0.1\n"
    zones, anchors = {}, {}
    (place / "bob.pem").write_bytes(pem(authority.issue("bob@signed.example").certificate, "CERTIFICATE"))
    code, bob, err = mailsec("smimea", "bob@signed.example", str(place / "bob.pem"))
    assert code == 0, err
    for name in ("signed.example", "plain.example", "bogus.example"):
        records = [
            record_for(authority.issue(f"{who}@{name}").certificate, usage=usage).text(owner_name(who, name), 300)
            for who, usage in (("carol", 3), ("dave", 1))
        ]
        text = "\n".join([head, *records, bob if name == "signed.example" else ""])
        zone = dns.zone.from_text(text, origin=name + ".", relativize=False)
        if name != "plain.example":
            anchors[name] = sign(zone)
        text = zone.to_text(relativize=False)
        if name == "bogus.example":
            # Somebody on the way put another certificate there.
            text = re.sub(r"(?m)^(\S+ \d+ IN SMIMEA 3 0 0 .*)[0-9a-f]{2}$", r"\g<1>00", text)
        (place / f"{name}.zone").write_text(text)
        zones[name] = f'zone:\n  name: "{name}"\n  zonefile: "{place}/{name}.zone"\n'
    nsd_port, port = free_port(), free_port()
    (place / "nsd.conf").write_text(NSD.format(port=nsd_port, place=place, zones="".join(zones.values())))
    stubs = "".join(f'stub-zone:\n  name: "{name}"\n  stub-addr: 127.0.0.1@{nsd_port}\n' for name in zones)
    trusted = "".join(f"  trust-anchor: '{anchor}'\n" for anchor in anchors.values())
    (place / "unbound.conf").write_text(UNBOUND.format(port=port, place=place, zones=stubs, anchors=trusted))
    configuration = place / "mailsec.toml"
    configuration.write_text(MAILSEC.format(place=place, port=port))
    assert mailsec("db", "init", "-d", str(place / "certificates.db"), "--no-password", "--anchors", "none")[0] == 0
    running = [
        subprocess.Popen([command, *flags, "-c", str(place / f"{command}.conf")], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        for command, flags in (("nsd", ["-d"]), ("unbound", ["-d"]))
    ]
    try:
        answers(nsd_port, "signed.example", running[0])
        assert answers(port, "signed.example", running[1])
        yield World(str(configuration), authority)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)


def test_a_signed_record_is_used_without_any_anchor(world):
    code, told = world.find("Bob@signed.example")
    assert code == 0, told
    (one,) = told["certificates"]
    assert one["certificate"]["addresses"] == ["bob@signed.example"] and one["source"] == "smimea" and "usage 3" in one["origin"]
    assert told["directories"] == [
        {"name": name, "found": found, "failed": False, "why": None} for name, found in (("database", 0), ("smimea", 1))
    ]


def test_usage_1_needs_an_anchor_though_it_is_signed(world):
    code, told = world.find("dave@signed.example")
    assert code == 1 and told["others"][0]["reason"]["stage"] == "path"


def test_nobody_there_is_a_no(world):
    code, told = world.find("nobody@signed.example")
    assert code == 1 and not told["found"] and told["directories"][1]["found"] == 0


def test_attack_a_zone_without_dnssec_is_not_believed(world):
    code, told = world.find("carol@plain.example")
    assert code == 1 and [one["reason"]["code"] for one in told["others"]] == ["smimea-unsigned"]


def test_attack_a_record_that_was_changed_on_the_way_is_waited_for_and_not_used(world):
    code, told = world.find("carol@bogus.example")
    assert code == 75 and told["others"] == [] and told["directories"][1]["failed"]
    assert "SERVFAIL" in told["directories"][1]["why"]
