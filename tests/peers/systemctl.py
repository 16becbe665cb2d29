"""`systemctl` and `journalctl` on a machine of tests/peers/machine.py: what systemd does with the units of mailsec, Postfix and Dovecot there.

Of mailsec's own unit it keeps User=, ExecStart=, LoadCredential=, AmbientCapabilities=, RuntimeDirectory= and Type=notify: `start` returns
when mailsec says that it is ready. What it hides from the service (ProtectSystem= and its like) is not done. Runs as a program.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNIT = Path("/etc/systemd/system/mailsec.service")
LOG = Path("/var/log/mailsec.journal")
# As in Debian's units; the first line of Postfix's copies resolv.conf and others to where its chrooted services look.
OTHERS = {
    "postfix": {"start": "/usr/lib/postfix/configure-instance.sh - && postfix start", "stop": "postfix stop", "reload": "postfix reload"},
    "dovecot": {"start": "/usr/sbin/dovecot", "stop": "doveadm stop", "reload": "doveadm reload"},
}


def settings() -> dict[str, str]:
    """The settings of the unit; of those that occur twice the last."""
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def pid_file() -> Path:
    return Path("/run/mailsec.service.pid")


def start() -> None:
    unit = settings()
    user = unit["User"]
    name, _, source = unit["LoadCredential"].partition(":")
    credentials = Path("/run/credentials/mailsec.service")
    credentials.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, credentials / name)
    for directory in (Path("/run") / unit["RuntimeDirectory"], Path("/var/lib") / unit["StateDirectory"], credentials):
        directory.mkdir(exist_ok=True)
        shutil.chown(directory, user, unit["Group"])
    shutil.chown(credentials / name, user)
    (credentials / name).chmod(0o400)
    capability = unit["AmbientCapabilities"].lower().removeprefix("cap_")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        address = f"/run/notify-{os.getpid()}"
        notices.bind(address)
        os.chmod(address, 0o777)  # noqa: PTH101 - as systemd's own
        command = [
            "setpriv", f"--reuid={user}", f"--regid={unit['Group']}", "--init-groups", f"--inh-caps=-all,+{capability}",
            f"--ambient-caps=-all,+{capability}", f"--bounding-set=-all,+{capability}", "--no-new-privs", *shlex.split(unit["ExecStart"]),
        ]  # fmt: skip
        environment = {"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": str(credentials), "NOTIFY_SOCKET": address}
        with LOG.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd="/", umask=0o077, start_new_session=True
            )
        pid_file().write_text(str(process.pid))
        notices.settimeout(0.2)
        deadline = time.monotonic() + 180
        ready = False
        while not ready:
            with contextlib.suppress(TimeoutError):
                ready = b"READY=1" in notices.recv(4096).splitlines()
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"mailsec did not start: {LOG.read_text()}")
        # Somebody goes on listening: mailsec tells systemd every few seconds that it is well.
        if os.fork() == 0:
            os.setsid()
            notices.setblocking(True)
            while process.pid and Path(f"/proc/{process.pid}").exists():
                notices.recv(4096)
            os._exit(0)


def stop() -> None:
    if pid_file().exists():
        pid = int(pid_file().read_text())
        pid_file().unlink()
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            if time.monotonic() > deadline:
                sys.exit("mailsec does not end")
            time.sleep(0.02)


def main() -> None:
    program, *words = sys.argv[1:]
    if program == "journalctl":
        sys.stdout.write(LOG.read_text())
        return
    verb, unit = next(word for word in words if not word.startswith("-")), words[-1].removesuffix(".service")
    verb = {"enable": "start"}.get(verb, verb)
    if verb == "daemon-reload":
        settings()
    elif unit == "mailsec":
        if verb == "reload":
            sys.exit(subprocess.run(shlex.split(settings()["ExecReload"]), check=False).returncode)
        if verb in ("stop", "restart"):
            stop()
        if verb in ("start", "restart"):
            start()
    else:
        if verb in ("stop", "restart"):
            # Nothing may be running yet.
            subprocess.run(OTHERS[unit]["stop"], shell=True, capture_output=True, check=False)
        if verb != "stop":
            sys.exit(subprocess.run(OTHERS[unit][verb if verb == "reload" else "start"], shell=True, check=False).returncode)


if __name__ == "__main__":
    main()
