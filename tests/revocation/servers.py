"""Real servers for evidence: `openssl ocsp` as a responder, and an HTTP server that also hangs, lies and never ends."""

from __future__ import annotations

import datetime as dt
import http.server
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.peers.gateway import until
from tests.peers.postfix import free_port


class OpensslResponder:
    """`openssl ocsp -port`, over the index of an authority."""

    def __init__(self, program: str, authority, directory: Path, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._program, self._authority, self._directory = program, authority, directory
        self._process: subprocess.Popen | None = None
        directory.mkdir(exist_ok=True)
        (directory / "ca.pem").write_bytes(authority.pem)
        key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (directory / "ca.key").write_bytes(key)

    def start(self, *people) -> None:
        """Answer about these people, as the authority thinks of them now."""
        self.stop()
        lines = []
        for person in people:
            certificate = person.parsed
            end = f"{certificate.not_valid_after_utc:%y%m%d%H%M%SZ}"
            serial = f"{certificate.serial_number:X}"
            serial = serial if len(serial) % 2 == 0 else "0" + serial
            revoked = certificate.serial_number in self._authority.revoked
            when = f"{dt.datetime.now(dt.UTC) - dt.timedelta(hours=1):%y%m%d%H%M%SZ},keyCompromise" if revoked else ""
            lines.append(f"{'R' if revoked else 'V'}\t{end}\t{when}\t{serial}\tunknown\t/CN={person.address}\n")
        (self._directory / "index.txt").write_text("".join(lines))
        (self._directory / "index.txt.attr").write_text("unique_subject = no\n")
        log = (self._directory / "log").open("wb")
        self._process = subprocess.Popen(
            [
                self._program, "ocsp", "-port", str(self.port), "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem",
                "-rkey", "ca.key", "-ndays", "1", "-timeout", "5",
            ],
            cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        until(lambda: b"waiting for OCSP client" in (self._directory / "log").read_bytes(), 10, "openssl ocsp")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


class Web:
    """An HTTP server on loopback; `pages[path]` is a function of the request's body, octets, or "hang", "endless"."""

    def __init__(self) -> None:
        self.pages: dict[str, Callable[[bytes], bytes] | bytes | str] = {}
        self.asked: list[str] = []
        self._over = threading.Event()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                web.asked.append(self.path)
                page = web.pages.get(self.path)
                if page == "hang":
                    web._over.wait(60)
                    return
                if page is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.end_headers()
                try:
                    while page == "endless" and not web._over.is_set():
                        self.wfile.write(b"0" * 65536)
                    if not isinstance(page, str):
                        self.wfile.write(page(body) if callable(page) else page)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
