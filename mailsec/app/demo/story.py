"""The chapters of the demonstration. Each does one thing, looks at what came of it, and says so; StepFailed ends the story."""

from __future__ import annotations

import json
import re
import shutil
import smtplib
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mailsec.app.demo.letters import ALICE, BOB, CAROL, Letter, Person, encrypted, inbound_letters, letter
from mailsec.app.demo.plugins import Part, installed, show_plugins
from mailsec.app.demo.reading import read
from mailsec.app.demo.show import Show, StepFailed
from mailsec.app.demo.world import HOSTNAME, World, until
from mailsec.app.output import plural
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets

__all__ = ["tell"]

BURST = 120
"""Messages that are on their way when a worker is killed."""
SENDERS = 4
STRANGER = "somebody@elsewhere.example"


class Story:
    """One telling."""

    def __init__(self, show: Show, world: World, parts: Mapping[str, Part] | None) -> None:
        self.show = show
        self.world = world
        self.parts = parts
        """The plugins that are told of; None where nobody asked."""
        self.rows: list[list[str]] = []
        self.carol: Person | None = None
        self.letters: list[Letter] = []

    # 1 -------------------------------------------------------------------------------------------------------------------------

    def make(self) -> None:
        show, world = self.show, self.world
        show.chapter(1, "A certificate database, a CA, and keys")
        with show.waiting("making keys and certificates"):
            world.make_database()
            show.ok("the database mailsec.db, opened by a pass phrase in a file", "SQLite; keys encrypted, trust authenticated")
            show.ok('"Demonstration CA", an anchor for mail of example.org and partner.example')
            show.ok('"Server-Cert", for TLS on the listeners', HOSTNAME)
            world.make_people()
        show.ok(f"a signing certificate for {ALICE}", "RSA-2048; she may log in")
        show.ok(f"a signing certificate for {BOB}", "P-256")

    # 2 -------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        show, world = self.show, self.world
        show.chapter(2, "The gateway, and a mail server behind it")
        world.start_destination()
        show.ok(f"aiosmtpd on 127.0.0.1:{world.ports['destination']}, delivering to a Maildir")
        world.start_mailbox()
        show.ok(f"a mailbox on 127.0.0.1:{world.ports['upstream']}", "Twisted's POP3 server, over the same Maildir")
        parts = self.parts or {}
        world.write_configuration(
            {name: part.services for name, part in parts.items()}, {name: part.settings for name, part in parts.items()}
        )
        with show.waiting("starting mailsec serve"):
            world.start_gateway()
        pids = world.worker_pids()
        if len(pids) != 2:
            raise StepFailed("mailsec serve", "two workers", plural(len(pids), "worker"))
        assert world.gateway is not None
        show.ok(f"mailsec serve, process {world.gateway.pid}, with two workers", f"processes {', '.join(map(str, pids.values()))}")
        show.ok(
            f"submission on 127.0.0.1:{world.ports['submission']}, Internet mail on 127.0.0.1:{world.ports['internet']}, "
            f"POP3 on 127.0.0.1:{world.ports['mailbox']}"
        )

    # 3 -------------------------------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        show, world = self.show, self.world
        show.chapter(3, "Alice submits a message, and it leaves signed")
        octets, message_id = letter(ALICE, CAROL, "Minutes of today", "Dear Carol,\n\nhere they are. Grüße,\n\nAlice\n", "minutes")
        client, tls = self._submission()
        with client:
            reply = client.sendmail(ALICE, [CAROL], octets)
        if reply:
            raise StepFailed("submission", "250", str(reply))
        show.ok(f"submitted with STARTTLS ({tls}) and AUTH PLAIN as alice")
        with show.waiting("waiting for it to arrive"):
            path = world.arrived(message_id)
        header = path.read_bytes().partition(b"\r\n\r\n")[0]
        if b"multipart/signed" not in header:
            raise StepFailed("what arrived", "a multipart/signed message", header[:400].decode("latin-1"))
        show.ok("arrived as multipart/signed", str(path.relative_to(world.directory)))
        verdict = self._mailsec_verify(path)
        if verdict.get("trusted") is not True:
            raise StepFailed("mailsec smime verify", "trusted", json.dumps(verdict.get("reasons") or verdict.get("error")))
        signer = verdict["layers"][0]["signers"][0]
        show.ok(
            "mailsec smime verify: trusted",
            f"{signer['signature']} with {signer['digest']}, by {', '.join(signer['certificate']['addresses'])}",
        )
        self._openssl_verify(path)
        self.rows.append(
            [
                "Alice submits",
                "leaves signed",
                "Content-Type: " + _field(path, "content-type"),
                "trusted: intact, chains to the CA, matches From",
            ]
        )

    def _submission(self) -> tuple[smtplib.SMTP, str]:
        context = ssl.create_default_context(cafile=str(self.world.ca_file))
        client = smtplib.SMTP("127.0.0.1", self.world.ports["submission"], timeout=20)
        try:
            # The certificate names localhost and 127.0.0.1: smtplib checks it against the host that it was given.
            client.starttls(context=context)
            assert isinstance(client.sock, ssl.SSLSocket)
            tls = client.sock.version() or ""
            client.login("alice", self.world.password)
        except BaseException:
            client.close()
            raise
        return client, tls

    def _mailsec_verify(self, path: Path) -> dict[str, Any]:
        command = [sys.executable, "-m", "mailsec", "smime", "verify", "--json", "--anchor", str(self.world.ca_file), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)  # noqa: S603 - our own interpreter
        try:
            verdict: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise StepFailed("mailsec smime verify", "one JSON object", done.stdout + done.stderr) from None
        return verdict

    def _openssl_verify(self, path: Path) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            self.show.note("openssl is not installed: its opinion is left out")
            return
        command = [openssl, "cms", "-verify", "-in", str(path), "-CAfile", str(self.world.ca_file), "-out", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)  # noqa: S603 - found by shutil.which
        if done.returncode != 0:
            raise StepFailed("openssl cms -verify", "CMS Verification successful", done.stderr.strip())
        self.show.ok("openssl cms -verify: successful")

    # 4 -------------------------------------------------------------------------------------------------------------------------

    def receive(self) -> None:
        show, world = self.show, self.world
        show.chapter(4, "Mail from outside is verified, whatever it says of itself")
        carol, stranger = world.correspondents()
        self.carol, self.letters = carol, inbound_letters(carol, stranger, HOSTNAME)
        letters = self.letters
        with smtplib.SMTP("127.0.0.1", world.ports["internet"], timeout=20) as client:
            for one in letters:
                client.sendmail(CAROL, [BOB], one.octets)
            try:
                client.sendmail(CAROL, ["somebody@elsewhere.example"], letters[0].octets)
            except smtplib.SMTPRecipientsRefused as refused:
                relayed = refused.recipients["somebody@elsewhere.example"]
            else:
                raise StepFailed("mail for a foreign domain", "refused: no open relay", "accepted")
        with show.waiting("waiting for them to arrive"):
            for one in letters:
                self._look_at(one, world.arrived(one.message_id))
        show.ok("mail for a foreign domain is refused", f"{relayed[0]} {relayed[1].decode('latin-1')}")

    def _look_at(self, one: Letter, path: Path) -> None:
        octets = path.read_bytes()
        result = _field(path, "authentication-results")
        found = re.search(r"\bsmime=([a-z]+)", result)
        if found is None or found.group(1) != one.word:
            raise StepFailed(one.what, f"smime={one.word}", result or "no Authentication-Results")
        if one.must_be_gone and one.must_be_gone in octets:
            raise StepFailed(one.what, "the forged result is removed", one.must_be_gone.decode())
        if one.must_remain and one.must_remain not in octets:
            raise StepFailed(one.what, "the signed octets arrive as they were sent", "they were changed")
        removed = "; the forged result is gone" if one.must_be_gone else "; passed on octet for octet" if one.must_remain else ""
        self.show.ok(f"{one.what}: smime={one.word}", f"as it should{removed}")
        self.rows.append([one.what, f"smime={one.word}", "Authentication-Results: " + result, _reason(result, one.word)])

    # 5 -------------------------------------------------------------------------------------------------------------------------

    def encrypt(self) -> None:
        show, world = self.show, self.world
        show.chapter(5, "What is confidential leaves encrypted, and comes home open")
        assert self.carol is not None
        learnt = until("Carol's certificate is learnt", 20, self._learnt, "the certificate of her signed mail")
        show.ok(f"Carol's certificate was learnt from her signed mail: {learnt[:16]}", "judged as every other: path, dates, revocation")
        octets, message_id = letter(ALICE, CAROL, "[confidential] The price", "Dear Carol,\n\nfour hundred.\n\nAlice\n", "confidential")
        client, _ = self._submission()
        with client:
            client.sendmail(ALICE, [CAROL], octets)
            stranger, _ = letter(ALICE, STRANGER, "[confidential] The price", "four hundred\n", "refused")
            try:
                client.sendmail(ALICE, [STRANGER], stranger)
            except smtplib.SMTPDataError as refused:
                why = f"{refused.smtp_code} {refused.smtp_error.decode('latin-1') if isinstance(refused.smtp_error, bytes) else ''}"
            else:
                raise StepFailed("confidential mail to somebody without a certificate", "refused", "accepted")
        with show.waiting("waiting for it to arrive"):
            path = world.arrived(message_id)
        if b"four hundred" in path.read_bytes() or "application/pkcs7-mime" not in _field(path, "content-type"):
            raise StepFailed("what arrived", "an encrypted message", path.read_bytes()[:400].decode("latin-1"))
        show.ok("arrived as application/pkcs7-mime; its words are not in it", str(path.relative_to(world.directory)))
        self._carol_reads(path)
        show.ok("the same to somebody who has no certificate is refused", why)
        self.rows.append(
            ["Alice submits, [confidential]", "leaves encrypted", "Content-Type: " + _field(path, "content-type"), "only Carol can read it"]
        )
        answer, answer_id = letter(CAROL, BOB, "The order", "Dear Bob,\n\nwe take ten.\n\nCarol\n", "order")
        with smtplib.SMTP("127.0.0.1", world.ports["internet"], timeout=20) as client:
            client.sendmail(CAROL, [BOB], encrypted(answer, self.carol, world.certificates[BOB]))
        with show.waiting("waiting for the answer to arrive"):
            path = world.arrived(answer_id)
        result = _field(path, "authentication-results")
        if b"we take ten" not in path.read_bytes() or "smime=pass" not in result:
            raise StepFailed("encrypted mail for Bob", "open, with smime=pass", result)
        show.ok("Carol's encrypted order for Bob arrives open: smime=pass", "answered with 250 before anybody looked inside")
        self.rows.append(["signed and encrypted for Bob", "open, smime=pass", "Authentication-Results: " + result, _reason(result, "pass")])

    def _learnt(self) -> str | None:
        found = (str(event["certificate"]) for event in self.world.events() if event.get("event") == "certificate learnt")
        return next(found, None)

    def _carol_reads(self, path: Path) -> None:
        files = ["--key", str(self.world.directory / "carol.key"), "--cert", str(self.world.directory / "carol.pem")]
        command = [sys.executable, "-m", "mailsec", "smime", "decrypt", "--json", *files, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)  # noqa: S603 - our own interpreter
        try:
            opened: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise StepFailed("mailsec smime decrypt", "one JSON object", done.stdout + done.stderr) from None
        if "four hundred" not in str(opened.get("text")):
            raise StepFailed("mailsec smime decrypt", "what Alice wrote", json.dumps(opened.get("reasons") or opened.get("error")))
        algorithm = next((layer["algorithm"] for layer in opened["layers"] if layer.get("algorithm")), "")
        self.show.ok("mailsec smime decrypt with Carol's key: four hundred", f"{algorithm}; signed inside by {ALICE}")
        openssl = shutil.which("openssl")
        if openssl is None:
            return
        keys = ["-inkey", str(self.world.directory / "carol.key"), "-recip", str(self.world.directory / "carol.pem")]
        other = subprocess.run([openssl, "cms", "-decrypt", "-in", str(path), *keys], capture_output=True, timeout=30)  # noqa: S603
        if b"four hundred" not in other.stdout:
            raise StepFailed("openssl cms -decrypt", "what Alice wrote", other.stderr.decode("latin-1").strip())
        self.show.ok("openssl cms -decrypt: the same")

    # 6 -------------------------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        show, world = self.show, self.world
        show.chapter(6, "A worker is killed in the middle of it all")
        burst = _Burst(self._submission, BURST)
        with show.waiting(f"submitting {BURST} messages on {SENDERS} connections"):
            burst.start()
            until("submission", 30, lambda: True if len(burst.accepted) >= BURST // 3 else None, "messages accepted", burst.problems)
            place, pid = world.kill_worker()
            show.ok(f"kill -9 {pid}", f"worker {place}, after {len(burst.accepted)} messages were accepted")
            burst.join(40)
        if len(burst.accepted) != BURST:
            raise StepFailed("submission goes on", f"{BURST} messages accepted", f"{len(burst.accepted)}; {burst.problems()}")
        show.ok(f"{BURST} messages accepted with 250", f"{plural(burst.interrupted, 'connection')} broke, and the sender tried again")
        with show.waiting("waiting for all of them to arrive"):
            missing: list[str] = []

            def all_arrived() -> bool | None:
                missing[:] = [message_id for message_id in burst.accepted if message_id not in world.delivered()]
                return None if missing else True

            until("every accepted message arrives", 40, all_arrived, f"{BURST} messages", lambda: f"{len(missing)} are missing")
        copies = sum(len(world.delivered()[message_id]) for message_id in burst.accepted)
        twice = copies - BURST
        show.ok(f"every one of the {BURST} arrived", f"{twice} of them twice" if twice else "none of them twice")
        pids = until(
            "the worker is replaced", 20, lambda: world.worker_pids() if world.worker_pids()[place] != pid else None, "a new process"
        )
        show.ok(f"worker {place} was replaced by process {pids[place]}")

    # 7 -------------------------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        self.show.chapter(7, "Bob reads his mail by POP3, through the gateway")
        assert self.carol is not None
        with self.show.waiting("reading"):
            self.rows += read(self.show, self.world, self.letters, self.carol)

    # 8 -------------------------------------------------------------------------------------------------------------------------

    def plugins(self) -> None:
        self.show.chapter(8, "Plugins bring protocols of their own")
        show_plugins(self.show, self.world, self._mailsec_verify)

    # 8, or 9 -------------------------------------------------------------------------------------------------------------------

    def conclude(self) -> None:
        show = self.show
        show.chapter(8 if self.parts is None else 9, "What was delivered")
        show.table("", ["what was sent", "what arrived", "delivered header", "why"], self.rows, ["", "bold", "", "dim"])


class _Burst:
    """Several connections that submit messages, as a mail program does: what was not acknowledged is sent again."""

    def __init__(self, connect: Callable[[], tuple[smtplib.SMTP, str]], number: int) -> None:
        self.accepted: list[str] = []
        self.interrupted = 0
        self._connect = connect
        self._pending = [letter(ALICE, CAROL, f"Number {index}", f"This is number {index}.\n", f"burst-{index}") for index in range(number)]
        self._lock = threading.Lock()
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(SENDERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))

    def problems(self) -> str:
        return self._errors[-1] if self._errors else "nothing went wrong"

    def _work(self) -> None:
        client: smtplib.SMTP | None = None
        while True:
            with self._lock:
                if not self._pending:
                    break
                octets, message_id = self._pending.pop()
            for _ in range(50):
                try:
                    if client is None:
                        client = self._connect()[0]
                    client.sendmail(ALICE, [CAROL], octets)
                    break
                except (smtplib.SMTPException, OSError) as error:
                    if client is not None:
                        client.close()
                    client = None
                    with self._lock:
                        self.interrupted += 1
                        self._errors.append(f"{type(error).__name__}: {error}")
                    time.sleep(0.1)
            else:
                return
            with self._lock:
                self.accepted.append(message_id)
        if client is not None:
            client.close()


def _field(path: Path, name: str) -> str:
    """The first field of a delivered message, on one line."""
    value = index_message(BytesOctets(path.read_bytes())).first(name) or ""
    return " ".join(value.split())


def _reason(result: str, word: str) -> str:
    """Why: the reason of RFC 8601 §2.2, or the comment, that stands in the result."""
    found = re.search(r'smime=\w+\s+(?:\(([^)]*)\)\s*)?(?:reason="((?:[^"\\]|\\.)*)")?', result)
    said = (found.group(2) or found.group(1) or "") if found else ""
    return said.replace('\\"', '"') or {"pass": "intact, chains to the CA, matches From", "none": "there is no signature"}.get(word, "")


def tell(show: Show, world: World, *, plugins: bool = False) -> None:
    """The whole story, with a chapter about plugins where that is asked for; raise StepFailed where something is not as it should be."""
    story = Story(show, world, installed() if plugins else None)
    chapters = [story.make, story.start, story.submit, story.receive, story.encrypt, story.kill, story.read, story.conclude]
    if plugins:
        chapters.insert(-1, story.plugins)
    for chapter in chapters:
        try:
            chapter()
        except (smtplib.SMTPException, OSError) as error:
            raise StepFailed(f"chapter {chapter.__name__}", "no error", f"{type(error).__name__}: {error}") from error
