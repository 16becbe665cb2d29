"""What the deployments share: the pages as lists of commands, the mail server that an administrator has already, the world, and its letters."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import dns.message
import dns.rrset
from aiosmtpd.smtp import AuthResult, LoginPassword

from mailsec.app.demo.letters import Person, letter, signed
from mailsec.keys.files import pem
from mailsec.keys.software import SoftwareKey
from mailsec.model.address import Address
from mailsec.x509.issue import IssuedBy, issue_mail, issue_server, make_ca, make_key, public_key_of
from tests.peers.gateway import PROJECT, until
from tests.peers.inbox import Inbox
from tests.peers.machine import Machine

__all__ = ["ALICE", "CAROL", "PASSWORD", "Place", "commands"]

ALICE, CAROL = "alice@example.org", "carol@partner.example"
PASSWORD = "secret"
GATEWAY, MAIL_SERVER, WORLD, PROVIDER = "192.0.2.10", "192.0.2.20", "198.51.100.25", "198.51.100.30"

RECORDS = {
    ("example.org.", "MX"): "10 mx.example.org.",
    ("mx.example.org.", "A"): GATEWAY,
    ("mail.example.org.", "A"): MAIL_SERVER,
    ("partner.example.", "MX"): "10 mx.partner.example.",
    ("mx.partner.example.", "A"): WORLD,
    ("relay.example.net.", "A"): PROVIDER,
}

# What an administrator has already: Debian's Postfix and Dovecot as they come, with a certificate (Debian's packages make one where ssl-cert is
# installed), a log file (there is no syslog here), and a person with a password. In `office` Postfix leaves the addresses of the other machine alone.
MAIL_SERVER_AT_HAND = """
useradd --create-home alice
echo 'alice:{password}' | chpasswd
mkdir -p /etc/ssl/mail
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=mail.example.org \\
  -addext subjectAltName=DNS:mail.example.org -keyout /etc/ssl/mail/key.pem -out /etc/ssl/mail/cert.pem 2> /dev/null
cp /etc/ssl/mail/cert.pem /etc/dovecot/private/dovecot.pem
cp /etc/ssl/mail/key.pem /etc/dovecot/private/dovecot.key
printf 'log_path = /var/log/dovecot.log\\nauth_failure_delay = 0\\n' > /etc/dovecot/conf.d/98-log.conf
postconf -e myhostname=mail.example.org maillog_file=/var/log/postfix.log alias_maps= \\
  smtpd_tls_cert_file=/etc/ssl/mail/cert.pem smtpd_tls_key_file=/etc/ssl/mail/key.pem {more}
printf 'nameserver 127.0.0.1\\n' > /etc/resolv.conf
"""


def commands(page: str) -> list[str]:
    """The blocks of shell of a page of docs, in their order. `make install` is left out: the tests run in what it made."""
    return [
        block.replace("make install\n", "")
        for block in re.findall(r"^```sh\n(.*?)^```", (PROJECT / "docs" / page).read_text(), re.M | re.S)
    ]


_installed: Path | None = None


def _machine_with_mailsec() -> Path:
    """The directory of a machine on which the steps of docs/deploy.md were typed; made once, for all processes of a run of the tests.

    A correspondent's CA was imported, too: `ca` has its certificate and key. Whoever uses the directory has a share of its lock; the last removes it.
    """
    global _installed
    # Users of the machine must reach what lies there, and pytest's directories keep them out.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    directory = Path(tempfile.gettempdir()) / f"mailsec-machine-{run}"
    while _installed is None:
        directory.mkdir(mode=0o755, exist_ok=True)
        try:
            share = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(share, fcntl.LOCK_SH)
        if os.fstat(share).st_nlink == 0:
            # Its last user removed it in this moment.
            os.close(share)
            continue
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (directory / "done").exists():
                _install(directory)
                (directory / "done").touch()
        _installed = directory
        atexit.register(_leave, directory, share)
    return _installed


def _leave(directory: Path, share: int) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    os.close(share)


def _install(directory: Path) -> None:
    key = make_key("ec-p256")
    certificate = make_ca(common_name="Partner CA", key=key, at=datetime.now(UTC), random=os.urandom, days=30)
    (directory / "ca").mkdir(exist_ok=True)
    (directory / "ca/certificate").write_bytes(certificate)
    (directory / "ca/key").write_bytes(key)
    with Machine(directory) as machine:
        for block in commands("deploy.md"):
            machine.run(block)
        machine.file("/etc/partner-ca.pem").write_bytes(pem(certificate, "CERTIFICATE"))
        machine.run("mailsec cert import /etc/partner-ca.pem --trust ,C, --for partner.example")
        machine.run("chown mailsec:mailsec /var/lib/mailsec/*")


class Place:
    """A machine on which a page of docs/deploy was followed, and the world around it. Use it as a context manager.

    `wrote` has what each block of the page wrote; `world` is everybody's MX, and `provider` the relay of the provider.
    """

    def __init__(self, page: str, *, postfix_at: str = "", systemd: bool = False) -> None:
        self.page = page
        self.directory = Path(tempfile.mkdtemp(prefix="mailsec-machine-"))
        self.directory.chmod(0o755)
        self.machine = Machine(self.directory, like=_machine_with_mailsec(), systemd=systemd)
        self.world: Inbox
        self.provider: Inbox | None = None
        self.wrote: list[str] = []
        self._postfix_at = postfix_at
        self._more = f"inet_interfaces={postfix_at},127.0.0.1" if postfix_at else ""
        ca = _machine_with_mailsec() / "ca"
        self.ca = IssuedBy((ca / "certificate").read_bytes(), (ca / "key").read_bytes())
        key = make_key("ec-p256")
        certificate = issue_mail(
            self.ca, addresses=[Address.parse(CAROL)], public_key=public_key_of(key), at=datetime.now(UTC), random=os.urandom, days=30
        )
        self.carol = Person(CAROL, certificate, SoftwareKey(CAROL, key, certificate=certificate))

    def __enter__(self) -> Place:
        try:
            self.machine.__enter__()
            if self._postfix_at:
                self.machine.run(f"ip address add {self._postfix_at}/32 dev lo")
            self.machine.run(MAIL_SERVER_AT_HAND.format(password=PASSWORD, more=self._more))
            self._serve_names()
            self.world = Inbox(listener=self.machine.listen(WORLD, 25)).start()
            return self
        except BaseException:
            self.__exit__()
            raise

    def follow(self) -> Place:
        """Type what stands in the page, block for block."""
        self.wrote = [self.machine.run(block) for block in commands(self.page)]
        return self

    def __exit__(self, *_: object) -> None:
        for inbox in (getattr(self, "world", None), self.provider):
            if inbox is not None:
                inbox.stop()
        self.machine.__exit__()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_provider(self, login: str, password: str) -> None:
        """The provider's relay, with a certificate of its name, for whom it knows."""
        key = make_key("ec-p256")
        at = datetime.now(UTC)
        certificate = issue_server(self.ca, names=["relay.example.net"], public_key=public_key_of(key), at=at, random=os.urandom, days=30)
        file = self.directory / "relay.pem"
        file.write_bytes(pem(certificate, "CERTIFICATE") + pem(key, "PRIVATE KEY"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        with self.machine.file("/etc/ssl/certs/ca-certificates.crt").open("ab") as believed:
            believed.write(pem(self.ca.certificate, "CERTIFICATE"))

        def right(_server: object, _session: object, _envelope: object, _mechanism: str, given: LoginPassword) -> AuthResult:
            return AuthResult(success=given == LoginPassword(login.encode(), password.encode()))

        self.provider = Inbox(
            listener=self.machine.listen(PROVIDER, 587),
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=right,
        ).start()

    def stop_provider(self) -> None:
        """It is away."""
        assert self.provider is not None
        self.provider.stop()

    def _serve_names(self) -> None:
        """DNS on port 53 of the machine: RECORDS, and no other name exists."""

        def bind() -> socket.socket:
            listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener.bind(("127.0.0.1", 53))
            return listener

        listener = self.machine.inside(bind)

        def serve() -> None:
            while True:
                octets, client = listener.recvfrom(4096)
                query = dns.message.from_wire(octets)
                answer = dns.message.make_response(query, recursion_available=True)
                name, kind = query.question[0].name.to_text().lower(), dns.rdatatype.to_text(query.question[0].rdtype)
                if record := RECORDS.get((name, kind)):
                    answer.answer.append(dns.rrset.from_text(name, 300, "IN", kind, record))
                elif not any(known == name for known, _ in RECORDS):
                    answer.set_rcode(dns.rcode.NXDOMAIN)
                listener.sendto(answer.to_wire(), client)

        threading.Thread(target=serve, daemon=True).start()

    # -- mail ------------------------------------------------------------------------------------------------------------------

    def tls(self, authority: str = "/etc/mailsec/example-ca.pem") -> ssl.SSLContext:
        """A client that believes certificates under that file of the machine, whatever their name."""
        context = ssl.create_default_context(cadata=self.machine.file(authority).read_text())
        context.check_hostname = False
        return context

    def submits(self, client: smtplib.SMTP, number: str) -> None:
        """Alice logs in and sends a letter to Carol."""
        with client:
            client.login("alice", PASSWORD)
            assert client.sendmail(ALICE, [CAROL], letter(ALICE, CAROL, "an offer", "Dear Carol,\n\nwe agree.\n", number)[0]) == {}

    def arrives(self, client: smtplib.SMTP, octets: bytes) -> None:
        """Carol's mail server delivers a letter to Alice."""
        with client:
            assert client.sendmail(CAROL, [ALICE], octets) == {}

    def arrives_again(self, octets: bytes) -> None:
        """The same, as often as Carol's mail server hears 4xx: what failed is remembered for a moment."""

        def attempt() -> bool:
            try:
                self.arrives(self.machine.smtp(GATEWAY, 25), octets)
            except smtplib.SMTPException as problem:
                if "451" not in str(problem):
                    raise
                return False
            return True

        until(attempt, 60, "the letter to be taken")

    def flush(self) -> None:
        """Until nothing waits any more."""
        self.machine.until("mailsec queue flush; mailsec queue list", "the queue is empty", 120)

    def letter(self, number: str, *, changed: bool = False) -> bytes:
        """A letter of Carol to Alice with her signature; `changed` on its way."""
        octets = signed(letter(CAROL, ALICE, number, "Dear Alice,\n\nwe meet on Tuesday.\n", number)[0], self.carol)
        return octets.replace(b"Tuesday", b"Friday") if changed else octets

    def mailbox(self, subject: str) -> str:
        """The letter with that subject, when it lies in Alice's mailbox: as Dovecot hands it out."""
        return self.machine.until(f"doveadm fetch -u alice text mailbox INBOX subject {subject} 2>&1 || true", "Received:", 60)

    def verify(self, octets: bytes) -> None:
        """OpenSSL finds Alice's signature intact, under the CA of docs/deploy.md."""
        command = [shutil.which("openssl") or "openssl", "cms", "-verify", "-CAfile", str(self.machine.file("/etc/mailsec/example-ca.pem"))]
        done = subprocess.run([*command, "-out", "/dev/null"], input=octets, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def results(self, subject: str) -> str:
        """Our verdict on the letter with that subject in Alice's mailbox: the field as one line."""
        header = re.sub(r"\r?\n[ \t]+", " ", self.mailbox(subject).partition("\n\n")[0])
        fields = re.findall(r"^Authentication-Results: mx\.example\.org; *(.*)$", header, re.M)
        assert len(fields) == 1, header
        return str(fields[0])
