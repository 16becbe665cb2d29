"""Certificates that end: told at each threshold, once; doubts before the start, and `strict`, which refuses it."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json

import pytest

from mailsec.app import cli
from mailsec.app.config.render import render
from mailsec.app.expiry import ExpiryWatch
from mailsec.app.letters import Told
from mailsec.app.output import Output
from mailsec.model.trust import TrustFlags
from mailsec.net.tls_context import OwnCertificate
from mailsec.store.certdb import CertDb
from mailsec.testing.runtime import FakeRuntime
from tests.peers.gateway import until
from tests.tls.issuing import Issuer

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


class Shown:
    def __init__(self, *holders) -> None:
        self.found = [OwnCertificate("Server-Cert", one.der, one.key) for one in holders]

    def all(self):
        return self.found


class Watched:
    """A watch with a database of its own; what it records, and the letters that it writes."""

    def __init__(self, tmp_path, runtime, *shown) -> None:
        self.database = CertDb.create(str(tmp_path / "watched.db"), b"", at=NOW)
        self.runtime = runtime
        self.told = tmp_path / "told.json"
        self.events = []
        self.letters = []
        self.shown = Shown(*shown)

    def look(self) -> None:
        async def write(subject, lines):
            self.letters.append((subject, list(lines)))

        # As after a restart: nothing is remembered but what is in the file.
        watch = ExpiryWatch(self.shown, self.database, self.runtime, self.events.append, write, Told(str(self.told)))
        asyncio.run(watch.look())


@pytest.fixture
def watched(tmp_path):
    made = []

    def make(runtime, *shown):
        made.append(Watched(tmp_path, runtime, *shown))
        return made[-1]

    yield make
    for one in made:
        one.database.close()


def test_each_threshold_is_told_once_also_over_restarts(watched):
    holder = Issuer(at=NOW).issue("gw.example.org", ends=dt.timedelta(days=40))
    runtime = FakeRuntime(NOW)
    watch = watched(runtime, holder)
    told = []
    for day in range(45):
        runtime.advance(0 if day == 0 else 86400)
        for _ in range(3):
            watch.look()
        told += [(day, event.name, event.fields["threshold"]) for event in watch.events]
        watch.events.clear()
    assert told == [
        (10, "certificate expires", 30),
        (26, "certificate expires", 14),
        (33, "certificate expires", 7),
        (39, "certificate expires", 1),
        (40, "certificate expired", 0),
    ]
    assert [subject for subject, _ in watch.letters] == [
        "Certificate Server-Cert expires in 30 days",
        "Certificate Server-Cert expires in 14 days",
        "Certificate Server-Cert expires in 7 days",
        "Certificate Server-Cert expires in 1 day",
        "Certificate Server-Cert has expired",
    ]


def test_renewed_certificate_is_quiet_and_one_that_ends_soon_is_told_at_its_own_threshold_only(watched):
    ca = Issuer(at=NOW)
    watch = watched(FakeRuntime(NOW), ca.issue("a.example", ends=dt.timedelta(days=5)))
    watch.look()
    assert [event.fields["threshold"] for event in watch.events] == [7]
    watch.shown = Shown(ca.issue("a.example", ends=dt.timedelta(days=90)))
    watch.look()
    assert len(watch.events) == 1


def test_certificates_of_people_are_told_in_one_letter_and_what_has_a_newer_one_or_no_key_is_not(watched):
    ca = Issuer(at=NOW)
    watch = watched(FakeRuntime(NOW))
    for nickname, days, has_key in (("alice", 6, True), ("bob", 3, True), ("carol", 2, True), ("carol", 300, True), ("dave", 2, False)):
        holder = ca.issue(f"{nickname}.example", ends=dt.timedelta(days=days))
        watch.database.add(holder.der, nickname, private_key=holder.key if has_key else None, at=NOW)
    watch.look()
    watch.look()
    ((subject, lines),) = watch.letters
    assert subject == "Certificate bob expires in 3 days, and 1 more"
    assert [line.split()[3] for line in lines if "(S/MIME)" in line] == ["bob", "alice"]


@pytest.fixture
def configuration(tmp_path):
    """A function that writes a configuration with this server certificate, and runs `mailsec check` on it."""
    ca = Issuer("CA of the host", at=NOW)

    def check(holder=None, *, trusted=True, **tls):
        file = tmp_path / "mailsec.toml"
        if not (tmp_path / "mailsec.db").exists():
            with CertDb.create(str(tmp_path / "mailsec.db"), b"", at=NOW) as database:
                database.add(ca.der, "CA", trust=TrustFlags.parse("C,," if trusted else ",,"), at=NOW)
                if holder is not None:
                    database.add(holder.der, "Server-Cert", private_key=holder.key, at=NOW)
        listener = {
            "address": "127.0.0.1:10587",
            "origin": "submission",
            "tls": "implicit",
            "certificate": tls.pop("certificate", "Server-Cert"),
        }
        values = {
            "gateway": {"hostname": "gw.example.org", "domains": ["example.org"]},
            "listener": [listener | tls.pop("listener", {})],
            "tls": tls,
            "relay": {"next_hop": "smtp://[127.0.0.1]:10026"},
        }
        file.write_text(render(values))
        out, err = io.StringIO(), io.StringIO()
        code = cli.run(("check", "--json", "-c", str(file)), Output(out, err))
        return code, json.loads(out.getvalue())

    check.ca = ca
    return check


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("expired", "expired on"),
        ("early", "not valid before"),
        ("untrusted", "would be trusted by nobody"),
        ("elsewhere", "names gw.example.org"),
    ],
)
def test_doubtful_server_certificate_is_a_warning_and_where_strict_a_mistake(configuration, case, words):
    ca = configuration.ca
    holder = {
        "expired": lambda: ca.issue("gw.example.org", ends=dt.timedelta(days=-1)),
        "early": lambda: ca.issue("gw.example.org", begins=dt.timedelta(days=1)),
        "untrusted": lambda: ca.issue("gw.example.org"),
        "elsewhere": lambda: ca.issue("elsewhere.example"),
    }[case]()
    code, said = configuration(holder, trusted=case != "untrusted")
    assert code == 0 and any(words in note for note in said["notes"]), said
    code, said = configuration(holder, enforce_valid_certs="strict")
    assert code == 78 and words in json.dumps(said)


def test_check_says_plainly_what_the_library_cannot_do(configuration):
    holder = configuration.ca.issue("gw.example.org")
    code, said = configuration(holder, ocsp_stapling=True)
    assert code == 78 and "sends no OCSP response" in json.dumps(said)
    for reference in ("token:Server-Cert", "pkcs11:token=x;object=y"):
        code, said = configuration(holder, certificate=reference)
        assert code == 78 and "takes none" in json.dumps(said)


def test_check_looks_into_directories(configuration, tmp_path):
    holder = configuration.ca.issue("gw.example.org")
    directory = tmp_path / "live"
    code, said = configuration(holder, certificate=f"file:{directory}")
    assert code == 78 and "cannot read" in json.dumps(said)
    holder.write(directory)
    code, said = configuration(holder, certificate=f"file:{directory}")
    assert code == 0 and not said["notes"], said
    (directory / "tls.key").chmod(0o644)
    code, said = configuration(holder, certificate=f"file:{directory}")
    assert code == 78 and "others may read the secret" in json.dumps(said)
    (directory / "tls.pem").write_bytes(configuration.ca.issue("gw.example.org").pem)
    code, said = configuration(holder, certificate=f"file:{directory}")
    assert code == 78 and "together with its private key" in json.dumps(said)


def test_weak_ciphers_are_told_and_broken_ones_refused(configuration):
    holder = configuration.ca.issue("gw.example.org")
    code, said = configuration(holder, listener={"ciphers": "+ecdhe_rsa_aes_128_sha,+ecdhe_ecdsa_aes_128_gcm_sha_256"})
    assert code == 0 and "ECDHE-RSA-AES128-SHA (CBC" in said["notes"][0]
    code, said = configuration(holder, listener={"ciphers": "+rsa_rc4_128_sha"})
    assert code == 78 and "RC4" in json.dumps(said)


def test_name_that_nobody_knows_is_told_once_and_where_it_stands(configuration):
    holder = configuration.ca.issue("gw.example.org")
    code, said = configuration(holder, listener={"protocols": ["TLSv1.0"]})
    assert code == 78 and json.dumps(said).count("TLSv1.0 is broken") == 1
    code, said = configuration(holder, groups=["kyber"])
    assert code == 78 and json.dumps(said).count("kyber") == 1


def test_a_letter_about_a_certificate_that_ends_reaches_the_postmaster(scene):
    def letters():
        return [one for one in list(scene.inbox.messages) if "postmaster@example.org" in one.recipients]

    (letter,) = until(letters, 60, "the letter")
    assert b"Subject: Certificate ends soon expires in 5 days" in letter.octets and b"mailsec cert import" in letter.octets
    assert [event["threshold"] for event in scene.events("certificate expires") if event["certificate"] == "ends soon"] == [7]
