"""A whole gateway in memory whose network is a function, and people whose certificates say where their status is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from authority import Authority

from mailsec.builtin.revocation import RevocationPlugin
from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import Unavailable
from mailsec.model.settings import RevocationSettings
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing.authority import MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import EPOCH, FakeRuntime

LETTER = "From: {address}\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\nHello.\r\n"


class Network(FakeRuntime):
    """Answers `fetch` by URL with functions of the body; remembers what was asked."""

    def __init__(self, **more) -> None:
        super().__init__(EPOCH, **more)
        self.places: dict[str, Callable[[bytes | None], object]] = {}
        self.asked: list[str] = []
        self.bugs: list[Exception] = []

    async def fetch(self, url: str, *, body: bytes | None = None, content_type: str = "", limit: int = 0, timeout: float = 0.0) -> bytes:
        self.asked.append(url)
        place = self.places.get(url)
        if place is None:
            place = next((found for prefix, found in self.places.items() if prefix.endswith("/*") and url.startswith(prefix[:-1])), None)
        if place is None:
            raise Unavailable(f"nobody at {url}", stage="fetch")
        try:
            answer = place(body if body is not None else url.encode())
        except Exception as error:  # of the test itself: it must not pass for a responder that is down
            self.bugs.append(error)
            raise
        if answer == "hangs":
            await self.sleep(timeout or 10.0)
            raise TimeoutError
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """`receive(person)` is what a message of that person comes to; `network.places` is the Internet."""

    def __init__(self, *authorities: Authority, plugins=(), keys=(), cache=None, rules=(), **revocation) -> None:
        self.network = Network()
        trust = MemoryTrust(*(authority.anchor for authority in authorities))
        self.rules = RuleSet([compile_rule("all", {}, sign="required"), *rules])
        self.gate = MemoryGateway(
            *plugins,
            MemoryKeys(*keys),
            built_in=[RevocationPlugin(), RulesPlugin(self.rules)],
            trust=trust,
            runtime=self.network,
            revocation=RevocationSettings(**revocation),
        )
        if cache is not None:
            self.gate.pipeline._tools.evidence._inquiries._cache = cache

    def receive(self, person, text: bytes | None = None) -> SimpleNamespace:
        """A signed message of `person` from the Internet: the verdict that was reported."""
        before = len(self.gate.ready)
        reply = self.gate.arrive(text if text is not None else signed(person), sender=person.address)
        assert reply.code == 250, reply
        assert not self.network.bugs, self.network.bugs
        octets = self.gate.ready[before]
        results = next(line for line in octets.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n") if b"smime=" in line)
        word = results.split(b"smime=")[1].split()[0].split(b";")[0].decode()
        return SimpleNamespace(word=word, results=results.decode(), octets=octets)


_SIGNED: dict[str, bytes] = {}


def signed(person) -> bytes:
    """A message that `person` signed, as another gateway sends it."""
    if person.der.hex() not in _SIGNED:
        other = MemoryGateway(
            MemoryKeys(person.handle),
            built_in=[RulesPlugin(RuleSet([compile_rule("all", {}, sign="required")]))],
            revocation=RevocationSettings(mode="off"),
            domains=(person.address.split("@")[1],),
        )
        other.submit(LETTER.format(address=person.address), sender=person.address, identity=_identity(person.address))
        _SIGNED[person.der.hex()] = other.ready[-1]
    return _SIGNED[person.der.hex()]


def _identity(address: str):
    from mailsec.model.session import Identity

    return Identity(address, (address,), "PLAIN")


@pytest.fixture
def ca() -> Authority:
    return Authority(at=EPOCH)


@pytest.fixture
def world(ca) -> World:
    return World(ca)


@pytest.fixture
def kit() -> SimpleNamespace:
    return SimpleNamespace(World=World, Authority=Authority, signed=signed, EPOCH=EPOCH, LETTER=LETTER, identity=_identity)
