"""What a STARTTLS handshake costs a server in CPU: mailsec beside Postfix, the same client, certificates and key exchange, in turn.

Each connection is EHLO, STARTTLS, a full handshake (TLS 1.3, X25519), EHLO, QUIT. Counted is the CPU of all processes of the server.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import ssl
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.peers.gateway import Gateway
from tests.peers.inbox import Inbox
from tests.peers.postfix import Postfix, processes_below, why_not
from tests.tls.issuing import Holder, Issuer

__all__ = ["figures", "goals"]

_TICKS = os.sysconf("SC_CLK_TCK")
_AT_ONCE = 8
KINDS = {"RSA-2048": "rsa", "P-256": "ec"}


def _cpu(pid: int) -> float:
    """CPU seconds of `pid`, of all that runs below it, and of what has ended there."""
    total = 0
    for process in processes_below(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def _shake(port: int, context: ssl.SSLContext) -> None:
    def reply(sock: socket.socket) -> bytes:
        data = b""
        while not data.endswith(b"\n") or data.rpartition(b"\n")[0].rpartition(b"\n")[2][3:4] == b"-":
            piece = sock.recv(4096)
            if not piece:
                raise OSError(f"the server went away after {data!r}")
            data += piece
        return data

    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        reply(raw)
        for command in (b"EHLO x\r\n", b"STARTTLS\r\n"):
            raw.sendall(command)
            reply(raw)
        with context.wrap_socket(raw, server_hostname="gw.example.org") as sock:
            for command in (b"EHLO x\r\n", b"QUIT\r\n"):
                sock.sendall(command)
                reply(sock)


def _cost(port: int, pid: int, count: int) -> float:
    """Milliseconds of server CPU for one handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda _: _shake(port, context), range(40)))
        before = _cpu(pid)
        list(pool.map(lambda _: _shake(port, context), range(count)))
        return (_cpu(pid) - before) / count * 1000


@contextlib.contextmanager
def _postfix(directory: Path, holder: Holder) -> Iterator[tuple[int, int]]:
    certificate, key = holder.write(directory)
    main = {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": f"{key}, {certificate}",
        "tls_preempt_cipherlist": "yes",
        "smtpd_tls_loglevel": "0",
    }
    master = "tlsmgr unix - - n 1000? 1 tlsmgr\n"
    with Postfix(directory / "postfix", main=main, master=master) as server:
        assert server.process is not None
        yield server.port, server.process.pid


def figures(rounds: int = 3, count: int = 400) -> dict[str, float]:
    """Milliseconds for one handshake, and ratios; empty without Postfix."""
    if why_not():
        return {}
    issuer = Issuer("figures", at=dt.datetime.now(dt.UTC))
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="mailsec-handshakes-") as name, Inbox() as inbox:
        directory = Path(name)
        directory.chmod(0o755)
        holders = {kind: issuer.issue("gw.example.org", kind=word) for kind, word in KINDS.items()}
        listeners = []
        for kind, holder in holders.items():
            holder.write(directory / kind)
            listeners.append({"name": kind, "tls": "starttls", "certificate": f"file:{directory / kind}"})
        gateway = Gateway(directory / "gateway", inbox.port, listeners=listeners)
        try:
            gateway.start()
            assert gateway.gateway is not None
            with contextlib.ExitStack() as stack:
                peers = {kind: stack.enter_context(_postfix(directory / f"postfix-{kind}", holder)) for kind, holder in holders.items()}
                for _ in range(rounds):
                    for kind in KINDS:
                        ours = _cost(gateway.ports[kind], gateway.gateway.pid, count)
                        theirs = _cost(*peers[kind], count)
                        found.setdefault(f"STARTTLS {kind}, mailsec, ms of CPU", []).append(ours)
                        found.setdefault(f"STARTTLS {kind}, Postfix, ms of CPU", []).append(theirs)
                        found.setdefault(f"STARTTLS {kind}, CPU of mailsec / Postfix", []).append(ours / theirs)
        finally:
            gateway.close()
    return {name: statistics.median(values) for name, values in found.items()}


def goals(limits: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """What must be reached, as (what, figure, must, aim)."""
    found = []
    for kind in KINDS:
        ratio = limits.get(f"STARTTLS {kind}, CPU of mailsec / Postfix")
        if ratio is not None:
            found.append((f"STARTTLS {kind}: server CPU, mailsec / Postfix (at most)", ratio, 1.0, 0.8))
    return found


if __name__ == "__main__":
    for figure, value in figures().items():
        print(f"{figure:<50} {value:8.3f}")
