"""A Dovecot of our own: Debian's programs, configuration, sockets and Maildirs in a directory of the test, on free loopback ports.

Nothing of the machine's own Dovecot is read, written or started. Needs root, since Dovecot gives its processes users of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.peers.postfix import free_port, wait_for_port

__all__ = ["Dovecot", "why_not"]

CONFIGURATION = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
protocols = pop3 lmtp
listen = 127.0.0.1
instance_name = test-{port}
mail_location = maildir:{directory}/mail/%n
first_valid_uid = 1
disable_plaintext_auth = no
auth_mechanisms = plain
auth_username_format = %Lu
ssl = yes
ssl_cert = <{directory}/server.pem
ssl_key = <{directory}/server.key
default_vsz_limit = 1G
mail_fsync = never
auth_cache_size = 1M
{more}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {directory}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/home/%n
}}
service anvil {{
  chroot =
}}
service pop3-login {{
  chroot =
  service_count = 0
  process_min_avail = 1
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
    ssl = yes
  }}
}}
service pop3 {{
  service_count = 0
}}
service lmtp {{
  unix_listener {directory}/lmtp {{
    mode = 0600
  }}
}}
"""


def why_not() -> str:
    """Why there can be no Dovecot here; "" where there can."""
    if os.geteuid() != 0:
        return "Dovecot needs root"
    if shutil.which("dovecot", path="/usr/sbin:/sbin") is None or not Path("/usr/lib/dovecot/pop3").exists():
        return "Dovecot is absent: apt-get install dovecot-pop3d"
    return ""


class Dovecot:
    """Users "alice" and "bob" (and the same with @example.org) with the password "secret"; mail in Maildirs."""

    def __init__(
        self, directory: Path, certificate: bytes, private_key: bytes, *, more: str = "", users: tuple[str, ...] = ("alice", "bob")
    ) -> None:
        directory.chmod(0o755)
        self.directory = directory
        self.port = free_port()
        self.tls_port = free_port()
        self.lmtp = directory / "lmtp"
        (directory / "server.pem").write_bytes(certificate)
        (directory / "server.key").write_bytes(private_key)
        logins = [login for user in users for login in (user, f"{user}@example.org")]
        (directory / "users").write_text("".join(f"{login}:{{PLAIN}}secret\n" for login in logins))
        (directory / "mail").mkdir()
        for user in users:
            for folder in ("cur", "new", "tmp"):
                (directory / "mail" / user / folder).mkdir(parents=True)
        for path in (directory / "mail", *(directory / "mail").rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
        self.configuration = directory / "dovecot.conf"
        self.configuration.write_text(CONFIGURATION.format(directory=directory, port=self.port, tls_port=self.tls_port, more=more))
        self.process: subprocess.Popen[bytes] | None = None
        self._number = 0

    def start(self) -> Dovecot:
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                ["/usr/sbin/dovecot", "-F", "-c", str(self.configuration)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        for port in (self.port, self.tls_port):
            wait_for_port(port, process=self.process)
        return self

    def stop(self) -> None:
        """End it and all its processes."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(15)

    def put(self, user: str, message: bytes) -> None:
        """Lay a message (CRLF) into a mailbox, as its newest."""
        self._number += 1
        path = self.directory / "mail" / user / "cur" / f"{1_700_000_000 + self._number}.M{self._number}P1.test:2,"
        path.write_bytes(message.replace(b"\r\n", b"\n"))
        shutil.chown(path, "nobody", "nogroup")

    def messages(self, user: str) -> list[Path]:
        """The files of a mailbox, the oldest first."""
        return sorted(path for folder in ("cur", "new") for path in (self.directory / "mail" / user / folder).iterdir())

    def empty(self, user: str) -> None:
        """Take everything out of a mailbox."""
        for path in self.messages(user):
            path.unlink()
        for path in (self.directory / "mail" / user).glob("dovecot*"):
            path.unlink()
