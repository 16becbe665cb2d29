"""Every cell of `cells`: what mailsec writes is read by other people's programs, and what they write is read by mailsec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.interop import ours
from tests.interop.cells import PEERS, Cell, cells
from tests.interop.peers import PeerError
from tests.interop.peers.bouncycastle import JARS, BouncyCastle
from tests.interop.peers.gpgsm import Gpgsm
from tests.interop.peers.nss import Nss
from tests.interop.peers.openssl import OpenSsl
from tests.interop.rows import CONTENT, ENTITY, ROWS


@pytest.fixture(scope="module")
def peer_named(need: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """A function that starts a peer when it is first asked for; what was started ends with the module."""
    started: dict[str, Any] = {}

    def start(name: str) -> Any:
        if name == "OpenSSL":
            return OpenSsl(need("openssl"), tmp_path_factory.mktemp("o"))
        if name == "NSS":
            programs = {one: need(one, "libnss3-tools") for one in ("certutil", "pk12util", "cmsutil")}
            return Nss(tmp_path_factory.mktemp("n"), **programs)
        if name == "GnuPG":
            return Gpgsm(tmp_path_factory.mktemp("g"), need("gpgsm"), need("gpgconf"))
        if not all(jar.exists() for jar in JARS):
            pytest.skip("Bouncy Castle is absent: apt-get install libbcmail-java")
        return BouncyCastle(
            tmp_path_factory.mktemp("b"), java=need("java", "default-jre-headless"), javac=need("javac", "default-jdk-headless")
        )

    def get(name: str) -> Any:
        if name not in started:
            started[name] = start(name)
        return started[name]

    yield get
    for peer in started.values():
        getattr(peer, "close", lambda: None)()


def parameters() -> list[Any]:
    return [pytest.param(cell, id=cell.name, marks=[pytest.mark.interop] if cell.peer.marked else []) for cell in cells()]


def exchange(cell: Cell, peer: Any) -> None:
    """Do what the cell says; PeerError where the peer does not."""
    if cell.direction == "from":
        ours.read(cell.row, peer.write(cell.row))
        return
    content = peer.read(cell.row, ours.write(cell.row))
    if cell.row.form == "certs-only":
        return
    if content != (ENTITY if cell.row.layers else CONTENT):
        raise PeerError(f"the peer reads {content[:200]!r}")


@pytest.mark.parametrize("cell", parameters())
def test_cell(cell: Cell, peer_named: Callable[[str], Any]) -> None:
    peer = peer_named(cell.peer.name)
    if not cell.why_not:
        exchange(cell, peer)
        return
    try:
        exchange(cell, peer)
    except PeerError:
        return
    # A newer version may do more: it is taken off the list when the page is recorded with that version.
    assert peer.version() != cell.peer.version, f"{cell.name} works: take it off the list in tests/interop/cells.py"


@pytest.mark.parametrize("form", ["detached", "opaque"])
@pytest.mark.parametrize("name", [pytest.param(peer.name, marks=[pytest.mark.interop] if peer.marked else []) for peer in PEERS])
def test_a_peer_refuses_what_was_changed_after_mailsec_signed_it(peer_named: Callable[[str], Any], name: str, form: str) -> None:
    row = next(row for row in ROWS if row.name == ("detached" if form == "detached" else "rsa-sha256"))
    peer, cms = peer_named(name), ours.write(row)
    changed = CONTENT.replace(b"read", b"lead")
    assert peer.read(row, cms, CONTENT) == CONTENT
    with pytest.raises(PeerError):
        peer.read(row, cms, changed) if form == "detached" else peer.read(row, cms.replace(CONTENT, changed))


@pytest.mark.parametrize("name", ["OpenSSL", pytest.param("Bouncy Castle", marks=pytest.mark.interop)])
def test_a_peer_refuses_what_was_changed_after_mailsec_encrypted_it_with_gcm(peer_named: Callable[[str], Any], name: str) -> None:
    row = next(row for row in ROWS if row.name == "aes-256-gcm")
    peer, cms = peer_named(name), ours.write(row)
    assert peer.read(row, cms) == CONTENT
    with pytest.raises(PeerError):
        peer.read(row, cms[:-1] + bytes([cms[-1] ^ 1]))
