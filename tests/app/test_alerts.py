"""Letters to the postmaster: tokens that are out, mail that waits for long; each thing once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mailsec.app import alerts as module
from mailsec.app.alerts import OUT_SECONDS, Alerts
from mailsec.app.letters import Letters, Told
from mailsec.errors import StorageFull
from mailsec.model.queue import RecipientState, State
from mailsec.model.settings import GatewaySettings, NextHop, RelaySettings
from mailsec.model.tokens import TokenKey
from mailsec.net.token_client import ListedToken
from mailsec.testing.memory import MemorySpool
from mailsec.testing.runtime import FakeRuntime

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
KEY = TokenKey("HSM", "key", b"1", "rsa", 2048, b"")


class World:
    def __init__(self, tmp_path) -> None:
        self.runtime = FakeRuntime(NOW)
        self.client = SimpleNamespace(module="yubi", tokens=(ListedToken("HSM", "HSM", usable=True, keys=(KEY,)),))
        self.letters: list[tuple[str, str]] = []
        self.fails = False
        self.path = str(tmp_path / "state" / "told.json")
        self.start()

    def start(self) -> None:
        self.alerts = Alerts(self.write, [self.client], "", self.runtime, Told(self.path))

    async def write(self, subject, lines) -> None:
        if self.fails:
            raise StorageFull("no room")
        self.letters.append((subject, "\n".join(lines)))

    def token(self, *, usable: bool, problem: str = "") -> None:
        self.client.tokens = tuple(replace(one, usable=usable, problem=problem) for one in self.client.tokens)

    def minutes(self, number: int) -> None:
        for _ in range(number):
            self.runtime.advance(60)
            asyncio.run(self.alerts.look_at_tokens())


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_a_token_that_is_out_is_told_once_and_again_after_it_was_back(world: World):
    world.minutes(2)
    world.token(usable=False, problem="a wrong PIN was tried")
    world.minutes(int(OUT_SECONDS // 60))
    assert not world.letters  # somebody may be changing the card
    world.minutes(60)
    ((subject, text),) = world.letters
    assert subject == "Token is out: yubi: HSM" and "a wrong PIN was tried" in text and "mailsec token login" in text
    world.start()  # a reload
    world.minutes(60)
    assert len(world.letters) == 1
    world.token(usable=True)
    world.minutes(1)
    world.token(usable=False)
    world.minutes(20)
    assert len(world.letters) == 2


def test_tokens_without_keys_are_nobodys_concern(world: World):
    world.client.tokens = (ListedToken("blank", "blank"),)
    world.minutes(60)
    assert not world.letters


def test_what_could_not_be_told_is_told_later(world: World):
    world.token(usable=False)
    world.minutes(15)
    world.fails = True
    with pytest.raises(StorageFull):
        world.minutes(1)
    world.fails = False
    world.minutes(1)
    assert len(world.letters) == 1


def test_old_mail_is_told_once_a_day_without_what_is_held_or_a_report(world: World, monkeypatch):
    def entry(id: str, hours: float, **changes):
        values = {
            "id": id,
            "state": State.READY,
            "paused": False,
            "received_at": datetime.fromtimestamp(NOW.timestamp() - hours * 3600, UTC),
            "rule": "",
            "reverse_path": "a@example.org",
            "reason": "",
            "need": "",
            "recipients": [("b@example.net", RecipientState.WAITING, "451 4.4.1 no answer\r\nfrom there")],
        }
        return SimpleNamespace(**{**values, **changes})

    queue = [
        entry("old", 25),
        entry("new", 23),
        entry("held", 99, state=State.HELD),
        entry("paused", 99, paused=True),
        entry("report", 99, rule="report"),
        entry("raw", 30, state=State.RAW, need="token:HSM", recipients=[]),
    ]
    monkeypatch.setattr(module, "list_queue", lambda _: queue)
    asyncio.run(world.alerts.look_at_mail())
    world.start()
    asyncio.run(world.alerts.look_at_mail())
    ((subject, text),) = world.letters
    assert subject == "Mail waits for long: 2"
    assert "old, since" in text and "451 4.4.1 no answer from there" in text and "needs token:HSM" in text
    assert not any(f"    {word}," in text for word in ("new", "held", "paused", "report"))
    world.runtime.advance(86_400)
    asyncio.run(world.alerts.look_at_mail())
    assert len(world.letters) == 2


def test_a_letter_is_a_message_in_the_queue_for_the_postmaster():
    spool, runtime = MemorySpool(), FakeRuntime(NOW)
    relay = RelaySettings(NextHop("smtp", "127.0.0.1", 25))
    settings = GatewaySettings("gw.example.org", ("example.org",), "gw.example.org", "postmaster@example.org", (), relay)
    asyncio.run(Letters(spool, runtime, settings).send("Subject\r\nBcc: x@evil.example", ["a line", "ünsafe\r\n.\r\n"]))
    (row,) = (one.entry for one in spool.in_state(State.READY))
    octets = row.segments.join()
    assert str(row.envelope.recipients[0].address) == settings.postmaster and row.envelope.reverse_path is None
    assert b"\r\nBcc:" not in octets and b"\r\n.\r\n" not in octets and b"a line" in octets
