"""A Postfix of our own: Debian's programs, its configuration and queue in a directory of the test, on a free loopback port.

It runs in a mount namespace in which that directory lies over /etc/postfix, /var/spool/postfix and /var/lib/postfix, so that
`sendmail` within it is an ordinary one and nothing of the machine's own Postfix is read, written or started. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.peers import logs

__all__ = ["Postfix", "free_port", "free_ports", "processes_below", "wait_for_port", "why_not"]

MAIN_CF = """\
compatibility_level = 3.6
maillog_file = {log}
maillog_file_prefixes = {directory}
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
queue_directory = /var/spool/postfix
data_directory = /var/lib/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
message_size_limit = 209715200
alias_maps =
local_recipient_maps =
default_database_type = hash
smtpd_tls_security_level = none
smtp_tls_security_level = none
"""

MASTER_CF = """\
{port}     inet  n - n - 100 smtpd {options}
pickup     unix  n - n 60 1 pickup
cleanup    unix  n - n - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
rewrite    unix  - - n - - trivial-rewrite
bounce     unix  - - n - 0 bounce
defer      unix  - - n - 0 bounce
trace      unix  - - n - 0 bounce
verify     unix  - - n - 1 verify
flush      unix  n - n 1000? 0 flush
proxymap   unix  - - n - - proxymap
smtp       unix  - - n - 100 smtp
relay      unix  - - n - 100 smtp
showq      unix  n - n - - showq
error      unix  - - n - - error
retry      unix  - - n - - error
discard    unix  - - n - - discard
lmtp       unix  - - n - - lmtp
anvil      unix  - - n - 1 anvil
scache     unix  - - n - 1 scache
postlog    unix-dgram n - n - 1 postlogd
"""


_WORKERS = 8
_given: set[int] = set()


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Several at once, each another one.

    Below the range from which the system gives clients their ports (32768 and up): one of those is soon somebody else's. What was given once is
    not given again, neither here nor by another worker of pytest-xdist: who got it may not listen there yet.
    """
    found: list[int] = []
    chance = random.SystemRandom()
    ours = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    while len(found) < count:
        port = chance.randrange(12_000, 32_000, _WORKERS) + ours
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                found.append(port)
        if len(_given) > 1_500:
            _given.clear()
    return found


def wait_for_port(port: int, seconds: float = 20.0, process: subprocess.Popen[bytes] | None = None) -> None:
    """Return when something listens on the loopback port; raise after `seconds`, or when `process` has ended."""
    limit = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            if time.monotonic() > limit or (process is not None and process.poll() is not None):
                raise
            time.sleep(0.05)


def why_not() -> str | None:
    """Why a Postfix cannot be started here; None where it can."""
    if not Path("/usr/lib/postfix/sbin/master").exists():
        return "postfix is absent: apt-get install postfix"
    if os.geteuid() != 0:
        return "postfix needs root to start"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        return "no mount namespaces here (unshare --mount)"
    return None


class Postfix:
    """A running Postfix: `main` and `master` are added to its two files, `smtpd_options` to its SMTP service; use it as a context manager."""

    def __init__(self, directory: Path, *, main: Mapping[str, str], master: str = "", smtpd_options: str = "") -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / "log"
        self.main = dict(main)
        self.master = master
        self.smtpd_options = smtpd_options
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Postfix:
        etc, spool, lib = (self.directory / name for name in ("etc", "spool", "lib"))
        for path in (etc, spool, lib):
            path.mkdir(parents=True)
        # Postfix's own daemons run as other users and must reach the log and the queue.
        for path in (self.directory, *list(self.directory.parents)[:2]):
            path.chmod(path.stat().st_mode | 0o055)
        shutil.chown(lib, "postfix", "postfix")
        for name in ("postfix-files", "postfix-script", "post-install", "dynamicmaps.cf"):
            source = Path("/etc/postfix") / name
            if source.exists():
                shutil.copy2(source, etc / name)
        # Each name once: of a second entry every program of Postfix writes a warning when it starts, postlogd too, to the socket that postlogd
        # reads. Where ten lines of others lie there already (they started sooner), it waits for itself, and all of them wait for it.
        ours = (line.partition(" =") for line in MAIN_CF.format(log=self.log, directory=self.directory).splitlines())
        settings = {name: value.strip() for name, _, value in ours} | self.main
        (etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (etc / "master.cf").write_text(MASTER_CF.format(port=f"127.0.0.1:{self.port}", options=self.smtpd_options) + self.master)
        script = (
            f"mount --bind {etc} /etc/postfix && mount --bind {spool} /var/spool/postfix && mount --bind {lib} /var/lib/postfix"
            " && exec postfix start-fg"
        )
        logs.began(self.log)
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / "stderr").open("wb"),
            start_new_session=True,
        )
        try:
            wait_for_port(self.port, 30, self.process)
        except OSError as error:
            text = (self.directory / "stderr").read_text() + (self.log.read_text() if self.log.exists() else "")
            self.stop()
            raise RuntimeError(f"postfix did not start: {text}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End master and all of its daemons."""
        if self.process is None:
            return
        logs.ended(self.log)
        # The shell of `postfix start-fg` does not pass a signal on to master, nor master to all of its daemons.
        everything = processes_below(self.process.pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in everything:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self.process.wait()


def processes_below(pid: int) -> list[int]:
    """`pid` and all processes that descend from it."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, open_ = [], [pid]
    while open_:
        current = open_.pop()
        found.append(current)
        open_ += parents.get(current, [])
    return found
