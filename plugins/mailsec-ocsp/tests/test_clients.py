"""The running responder, asked by OpenSSL, NSS and curl, and attacked over real sockets."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from mailsec.keys.files import load_certificates
from mailsec.pki.ocsp import ocsp_request
from mailsec.x509.certificate import load_certificate
from mailsec.x509.ocsp import read_ocsp_response
from tests.peers.gateway import PROJECT, Gateway, until


def run(*command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """dora is good, emil is revoked, frida is revoked on the way; their authority has appointed a key."""
    directory = tmp_path_factory.mktemp("ocsp")
    gateway = Gateway(
        directory / "gateway",
        9,
        workers=1,
        listeners=[{"name": "ocsp", "service": "ocsp"}],
        plugins={"enabled": ["ocsp"]},
        plugin={"ocsp": {"authorities": ["Company CA"], "signers": ["Company OCSP"], "path": "/status"}},
    )

    def mailsec(*arguments: str) -> None:
        command = [sys.executable, "-m", "mailsec", *arguments, "-c", str(gateway.configuration)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=PROJECT)
        assert done.returncode == 0, done.stderr

    def issue(name: str, *arguments: str) -> None:
        mailsec("cert", "issue", *arguments, "--key", "ec-p256", "-o", str(directory / f"{name}.pem"))

    issue("ca", "--new-ca", "Company CA", "--for", "example.org")
    issue("signer", "--ca", "Company CA", "--responder", "Company OCSP")
    for name in ("dora", "emil", "frida"):
        issue(name, "--ca", "Company CA", "--address", f"{name}@example.org")
    mailsec("cert", "revoke", "--reason", "keyCompromise", "emil@example.org")
    address = f"http://127.0.0.1:{gateway.ports['ocsp']}/status"

    def openssl(*arguments: str) -> tuple[int, str]:
        ca = str(directory / "ca.pem")
        done = run("openssl", "ocsp", "-issuer", ca, "-CAfile", ca, "-url", address, *arguments)
        return done.returncode, done.stdout + done.stderr

    def certificate(name: str):
        return load_certificate(load_certificates((directory / f"{name}.pem").read_bytes())[0])

    def request(name: str, **changes) -> bytes:
        return ocsp_request(certificate(name), certificate("ca"), **changes)

    try:
        gateway.start()
        yield SimpleNamespace(
            directory=directory,
            gateway=gateway,
            mailsec=mailsec,
            openssl=openssl,
            request=request,
            address=address,
            pem=lambda name: str(directory / f"{name}.pem"),
        )
    finally:
        gateway.close()


def talk(world, *pieces: bytes) -> bytes:
    """Everything that comes back until the connection is closed."""
    with world.gateway.connect("ocsp") as client:
        try:
            for piece in pieces:
                client.sendall(piece)
        except OSError:  # it was cut off in the middle
            pass
        heard = b""
        try:
            while octets := client.recv(65536):
                heard += octets
        except ConnectionResetError:
            pass
        return heard


def test_openssl_is_told_good_revoked_and_unknown(world):
    code, text = world.openssl("-cert", world.pem("dora"))
    assert code == 0 and "Response verify OK" in text and "dora.pem: good" in text and "WARNING" not in text
    code, text = world.openssl("-cert", world.pem("emil"), "-no_nonce")
    assert "Response verify OK" in text and "emil.pem: revoked" in text and "Reason: keyCompromise" in text
    code, text = world.openssl("-serial", "0x1234", "-no_nonce")
    assert "Response verify OK" in text and "0x1234: unknown" in text
    code, text = world.openssl("-sha256", "-cert", world.pem("dora"), "-sha256", "-cert", world.pem("emil"))
    assert "Response verify OK" in text and "dora.pem: good" in text and "emil.pem: revoked" in text


def test_openssl_is_told_of_a_revocation_at_once(world):
    assert "frida.pem: good" in world.openssl("-cert", world.pem("frida"), "-no_nonce")[1]
    world.mailsec("cert", "revoke", "frida@example.org")
    # The database is asked once a second whether it has changed.
    until(lambda: "frida.pem: revoked" in world.openssl("-cert", world.pem("frida"), "-no_nonce")[1], 10, "the revocation")


def test_openssl_is_not_answered_about_another_authority(world):
    done = run("openssl", "ocsp", "-issuer", world.pem("dora"), "-cert", world.pem("dora"), "-url", world.address)
    assert "unauthorized" in done.stdout + done.stderr


def test_nss_believes_it(world):
    if shutil.which("ocspclnt") is None or shutil.which("certutil") is None:
        pytest.skip("ocspclnt is absent: apt-get install libnss3-tools")
    database = f"sql:{world.directory / 'nss'}"
    (world.directory / "nss").mkdir()
    run("certutil", "-N", "-d", database, "--empty-password")
    for name, trust in (("ca", "C,C,C"), ("signer", ",,"), ("dora", ",,"), ("emil", ",,")):
        run("certutil", "-A", "-d", database, "-n", name, "-t", trust, "-a", "-i", world.pem(name))
    asked = lambda name: run("ocspclnt", "-d", database, "-S", name, "-l", world.address, "-t", "signer")  # noqa: E731
    good, revoked = asked("dora"), asked("emil")
    assert "succeeded" in good.stdout + good.stderr, good
    assert "revoked" in revoked.stdout + revoked.stderr, revoked


def test_curl_gets_what_caches_need_to_know_and_is_told_of_no_change(world):
    path = f"{world.address}/{quote(base64.b64encode(world.request('dora')), safe='')}"
    out = world.directory / "answer.der"
    done = run("curl", "-sS", "-D", "-", "-o", str(out), path)
    head = dict(line.split(": ", 1) for line in done.stdout.splitlines()[1:] if line)
    assert head["Content-Type"] == "application/ocsp-response" and done.stdout.startswith("HTTP/1.1 200 OK")
    assert 43_000 < int(head["Cache-Control"].removeprefix("max-age=").split(",")[0]) <= 43_200
    assert head["Cache-Control"].endswith("public, no-transform, must-revalidate")
    assert head["Last-Modified"].endswith("GMT") and head["Expires"].endswith("GMT") and head["Date"].endswith("GMT")
    assert read_ocsp_response(out.read_bytes()).responses[0].status == "good"
    assert run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"If-None-Match: {head['ETag']}", path).stdout == "304"
    # Many clients leave the signs of base64 as they are, and some put a "/" too many.
    plain = base64.b64encode(world.request("dora")).decode()
    assert run("curl", "-sS", "-I", f"{world.address}//{plain}").stdout.startswith("HTTP/1.1 200 OK")


def test_an_answer_with_a_nonce_is_kept_by_no_cache(world):
    path = f"{world.address}/{quote(base64.b64encode(world.request('dora', nonce=b'n' * 32)), safe='')}"
    head = run("curl", "-sS", "-I", path).stdout
    assert "Cache-Control: no-store" in head and "ETag" not in head


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["/status"], "400"),
        (["/"], "404"),
        (["/status2"], "404"),
        (["/status/%00"], "400"),
        (["/status", "-X", "PUT"], "405"),
        (["/status", "-d", "x"], "415"),
        (["/status/x", "-d", "x", "-H", "Content-Type: application/ocsp-request"], "404"),
        (["/status", "-d", "x", "-H", "Content-Type: application/ocsp-request"], "200"),
    ],
)
def test_what_is_no_question_is_told_so(world, arguments, status):
    path, *options = arguments
    base = world.address.removesuffix("/status")
    assert run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *options, base + path).stdout == status


@pytest.mark.parametrize(
    "path", ["/status/../../../etc/passwd", "/../../etc/passwd", "/status/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/status/..%5c..%5cetc"]
)
def test_attack_path_traversal_finds_no_file(world, path):
    heard = talk(world, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert heard.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ")) and b"root:" not in heard


def test_attack_a_post_of_ten_gigabytes_is_refused_before_it_is_read(world):
    head = b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Type: application/ocsp-request\r\nContent-Length: 10737418240\r\n\r\n"
    assert talk(world, head).startswith(b"HTTP/1.1 413 ")


def test_attack_a_header_flood_is_cut_off(world):
    with pytest.raises((ConnectionError, AssertionError)), world.gateway.connect("ocsp") as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(10_000):
            client.sendall(b"X: " + b"y" * 1000 + b"\r\n")
        raise AssertionError("ten megabytes of header were taken")
    assert world.openssl("-cert", world.pem("dora"))[0] == 0


def test_attack_of_a_smuggled_request_nothing_is_answered(world):
    hidden = b"GET /status/MEIwQDA+ HTTP/1.1\r\nHost: a\r\n\r\n"
    lengths = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"
    heard = talk(world, b"POST /status HTTP/1.1\r\nHost: a\r\n" + lengths + b"\r\n0\r\n\r\n" + hidden)
    assert heard.count(b"HTTP/1.1 ") == 1 and heard.startswith(b"HTTP/1.1 400 ")


def test_many_clients_at_once_are_each_answered(world):
    octets = world.request("dora")
    head = b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n" % len(octets)
    clients = [world.gateway.connect("ocsp") for _ in range(50)]
    try:
        for client in clients:
            client.sendall((head + octets) * 2)
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            heard = b""
            while piece := client.recv(65536):
                heard += piece
            assert heard.count(b"HTTP/1.1 200 OK") == 2
    finally:
        for client in clients:
            client.close()
