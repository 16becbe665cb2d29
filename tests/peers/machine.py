"""A machine of our own for a page of docs/deploy: what is typed there changes nothing outside, and every path and port is that of the page.

It is a set of namespaces (files, network, processes) on this machine. /etc, /var, /opt, /usr/local and /home are overlays, so Debian's Postfix and
Dovecot lie there as they were installed, and `useradd`, `postconf -e` or port 25 belong to the machine alone; /opt/mailsec is this checkout.
192.0.2.0/24 are all its own addresses, and a cable leads to the world, 198.51.100.0/24, where tests send and receive. Needs root.
There is no systemd in it: `systemctl` and `journalctl` are tests/peers/systemctl.py, which starts mailsec as its unit says. Where cgroups can be
had, a real systemd can be its first process instead (`systemd=True`); it starts no service but those that are asked for.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.peers.gateway import PROJECT, until

__all__ = ["Machine", "why_no_systemd", "why_not"]

T = TypeVar("T")

OVERLAYS = ("etc", "var", "opt", "usr/local", "home")
SETUP = """
set -e
{unveiled}
for name in {overlays}; do
  layers={directory}/layers/$name
  mkdir -p $layers/upper $layers/work
  mount -t overlay overlay -o lowerdir=/$name,upperdir=$layers/upper,workdir=$layers/work /$name
done
mount -t tmpfs -o mode=755 tmpfs /run
chmod o+rx {hidden} /etc
mkdir -p /opt/mailsec
mount --bind {project} /opt/mailsec
ip link set lo up
ip route add local 192.0.2.0/24 dev lo
unshare --net sleep infinity &
world=$!
until [ "$(readlink /proc/$world/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link add outside type veth peer name inside netns $world
ip address add 203.0.113.1/30 dev outside
ip link set outside up
nsenter --target $world --net sh -e << 'END'
ip link set lo up
ip address add 203.0.113.2/30 dev inside
ip link set inside up
ip route add local 198.51.100.0/24 dev lo
ip route add 192.0.2.0/24 via 203.0.113.1
END
ip route add 198.51.100.0/24 via 203.0.113.2
"""
STAND_IN = """
for name in systemctl journalctl; do
  printf '#!/bin/sh\\nexec {python} {project}/tests/peers/systemctl.py %s "$@"\\n' $name > /usr/local/bin/$name
  chmod 755 /usr/local/bin/$name
done
echo ready
exec sleep infinity
"""
# systemd empties /tmp, makes devices and sets the kernel's variables as it begins: here /tmp, /dev and the hierarchy of cgroups are its own, and what
# would do the rest is masked. It mounts the credentials of a service from outside of that: mounts are shared within the machine.
SYSTEMD = """
mount --bind {project} /mnt
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p {project}
mount --move /mnt {project}
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/pts /mnt/shm
for node in null zero full random urandom tty; do
  touch /mnt/$node
  mount --bind /dev/$node /mnt/$node
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts /mnt/pts
mount -t tmpfs -o mode=1777 tmpfs /mnt/shm
ln -s pts/ptmx /mnt/ptmx
ln -s /proc/self/fd /mnt/fd
ln -s fd/0 /mnt/stdin
ln -s fd/1 /mnt/stdout
ln -s fd/2 /mnt/stderr
mount --rbind /mnt /dev
umount --recursive /mnt
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/system /run/systemd/journald.conf.d
rm -f /usr/local/bin/systemctl /usr/local/bin/journalctl
for unit in {masked}; do
  ln -s /dev/null /run/systemd/system/$unit
done
printf '[Unit]\\nRequires=basic.target\\nAfter=basic.target\\n' > /run/systemd/system/machine.target
printf '[Journal]\\nStorage=volatile\\n' > /run/systemd/journald.conf.d/machine.conf
: > /etc/fstab
mount --make-rshared /
echo ready
exec env -i container=machine PATH={path} {systemd} --system --unit=machine.target --log-target=journal --show-status=no > /dev/null
"""
SYSTEMD_PROGRAM = Path("/usr/lib/systemd/systemd")
# What changes the kernel's settings or the disk's files when a machine begins (the kernel is that of all), and what starts other packages' services.
MASKED = (
    *(
        f"systemd-{name}.service"
        for name in ("sysctl", "modules-load", "remount-fs", "tmpfiles-setup", "tmpfiles-setup-dev", "udevd", "sysusers")
    ),
    *(f"systemd-{name}.service" for name in ("random-seed", "timesyncd", "update-utmp", "networkd", "resolved", "binfmt", "journal-flush")),
    *("sockets.target", "timers.target", "paths.target", "kmod-static-nodes.service", "modprobe@.service"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount"),
    *(f"sys-kernel-{name}.mount" for name in ("debug", "tracing", "config")),
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLONE_NEWNET = 0x40000000


def why_not() -> str:
    """Why there can be no such machine here; "" where there can."""
    if os.geteuid() != 0:
        return "a machine of namespaces needs root"
    if not all(shutil.which(program, path=PATH) for program in ("unshare", "nsenter", "ip", "setpriv")):
        return "unshare, nsenter, ip or setpriv is absent: apt-get install util-linux iproute2"
    trial = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w && mount -t overlay x -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc"
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", trial]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        return "no namespaces with overlays here"
    return ""


def why_no_systemd() -> str:
    """Why systemd cannot be the first process of such a machine here; "" where it can."""
    if not SYSTEMD_PROGRAM.exists():
        return "systemd is absent: apt-get install systemd"
    above = _cgroups()
    trial = (above or Path("/nowhere")) / f"mailsec-trial-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as problem:
        return f"no cgroup of version 2 can be made: {problem}"
    return ""


def _cgroups() -> Path | None:
    """Where the hierarchy of version 2 is mounted."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next((Path(fields[1]) for fields in lines if fields[2] == "cgroup2"), None)


def _hidden() -> list[Path]:
    """Directories above the checkout and its Python that other users may not enter; on the machine mailsec has a user of its own."""
    places = (PROJECT, Path(sys.executable), Path(sys.executable).resolve())
    return sorted({path for place in places for path in place.parents if path.stat().st_mode & 0o005 != 0o005})


def _unveiled(directory: Path, hidden: list[Path]) -> tuple[str, list[Path]]:
    """Lines of the script that show the checkout in a directory of its own, and the hidden directories that overlays are left for.

    A directory beside our layers (a clean clone below /tmp that is its owner's alone) cannot be an overlay: its upper layer would lie in its lower
    one.
    """
    beside = [path for path in hidden if path.parts[1] == directory.parts[1]]
    if not beside:
        return "", hidden
    veil = shlex.quote(str(beside[0]))
    project = shlex.quote(str(PROJECT))
    lines = f"mount --bind {project} /mnt\nmount -t tmpfs -o mode=755 tmpfs {veil}\nmkdir -p {project}\nmount --move /mnt {project}"
    return lines, [path for path in hidden if path not in beside]


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


class Machine:
    """Use it as a context manager. What it was changed to lies in `directory`; `like` is the directory of one that is taken up from there.

    `systemd`: it is the machine's first process.
    """

    def __init__(self, directory: Path, like: Path | None = None, *, systemd: bool = False) -> None:
        self.directory = directory
        self._cgroup: Path | None = None
        if systemd:
            above = _cgroups()
            assert above is not None
            self._cgroup = above / f"mailsec-{directory.name}"
        if like is not None:
            subprocess.run(["cp", "-a", str(like / "layers"), str(directory)], check=True)
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._pid = self._world = 0

    def __enter__(self) -> Machine:
        unveiled, hidden = _unveiled(self.directory, _hidden())
        overlays = [*OVERLAYS, *{path.parts[1] for path in hidden}]
        script = (SETUP + (STAND_IN if self._cgroup is None else SYSTEMD)).format(
            unveiled=unveiled,
            overlays=" ".join(overlays),
            hidden=" ".join(map(str, hidden)),
            directory=self.directory,
            project=PROJECT,
            python=sys.executable,
            masked=" ".join(MASKED),
            path=PATH,
            systemd=SYSTEMD_PROGRAM,
        )
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]
        if self._cgroup is not None:
            self._cgroup.mkdir()
            command[1:1] = ["--cgroup", "--uts", "--ipc"]
            command[:0] = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self._cgroup)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self.directory / "stderr").open("wb"),
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"no machine: {(self.directory / 'stderr').read_text()}")
        self._pid = _child(self._process.pid)
        self._world = _child(self._pid)
        if self._cgroup is not None:
            until(lambda: self.run("systemctl is-active machine.target 2>&1 || true") == "active\n", 60, "systemd")
        return self

    def __exit__(self, *_: object) -> None:
        """End it; with its first process all others end."""
        if self._process is None:
            return
        # unshare takes its first process, and that all others, with it.
        self._process.kill()
        self._process.wait(20)
        if self._cgroup is not None:
            until(lambda cgroup=self._cgroup: "populated 0" in (cgroup / "cgroup.events").read_text(), 20, "the end of the machine")
            for directory, _, _ in os.walk(self._cgroup, topdown=False):
                Path(directory).rmdir()

    def run(self, script: str, *, succeeds: bool = True) -> str:
        """Run lines of shell in /opt/mailsec, as root; what they wrote, both streams. `export` lasts, as it does in a terminal."""
        whole = f"set -e\n{script}\nexport -p > /var/exported"
        if self.file("/var/exported").exists():
            whole = f". /var/exported\n{whole}"
        command = ["nsenter", "--target", str(self._pid), "--mount", "--net", "--pid", "--wdns=/opt/mailsec", "bash", "-c", whole]
        environment = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
        # Not a pipe: servers that the script leaves behind would keep it open.
        with tempfile.TemporaryFile("w+") as wrote:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=wrote, stderr=wrote, env=environment, timeout=300, check=False)
            wrote.seek(0)
            text = wrote.read()
        assert (done.returncode == 0) is succeeds, f"{script}\n-> {done.returncode}\n{text}"
        return text

    def file(self, path: str) -> Path:
        """A file of the machine as it is seen from outside."""
        return Path(f"/proc/{self._pid}/root{path}")

    # -- the network -----------------------------------------------------------------------------------------------------------

    def inside(self, action: Callable[[], T], *, world: bool = False) -> T:
        """Do it in the network of the machine, or in the world outside: sockets that it makes stay there."""
        result: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                with open(f"/proc/{self._world if world else self._pid}/ns/net") as namespace:  # noqa: PTH123 - a descriptor is what setns takes
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                result.append(action())
            except BaseException as problem:
                failure.append(problem)

        # A namespace belongs to a thread: this one ends with it.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def smtp(self, host: str, port: int, *, source: str = "198.51.100.99", tls: ssl.SSLContext | None = None) -> smtplib.SMTP:
        """smtplib, connected from the world, or from another address; `tls`: at once on port 465, by STARTTLS on others."""

        def connect() -> smtplib.SMTP:
            known: dict[str, Any] = {"timeout": 60, "source_address": (source, 0), "local_hostname": "client.example"}
            if tls is not None and port == 465:
                return smtplib.SMTP_SSL(host, port, context=tls, **known)
            return smtplib.SMTP(host, port, **known)

        client = self.inside(connect, world=source.startswith("198."))
        if tls is not None and port != 465:
            client.starttls(context=tls)
        return client

    def listen(self, host: str, port: int) -> socket.socket:
        """A socket that listens in the world."""
        return self.inside(lambda: socket.create_server((host, port)), world=True)

    def until(self, script: str, found: str, seconds: float = 60) -> str:
        """Run it again and again until it writes `found`."""
        return str(until(lambda: (lambda text: text if found in text else "")(self.run(script)), seconds, f"{found} from {script}"))
