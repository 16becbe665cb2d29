"""Whether recipients exist, asked of a next hop by RCPT: our own server plays it."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from mailsec.errors import Reply, Unavailable
from mailsec.model.address import Address
from mailsec.model.settings import GatewaySettings, NextHop, RelaySettings
from mailsec.net.next_hop_recipients import NextHopRecipients, _means
from mailsec.net.runtime import TwistedRuntime
from mailsec.wire.smtp import questions
from mailsec.wire.smtp.server import ServerSettings
from tests.peers.postfix import free_port

from .conftest import Inbox

ALICE, BOB, CAROL = (Address.parse(f"{name}@example.org") for name in ("alice", "bob", "carol"))


class Store(Inbox):
    """A mail store with alice in it; `says` answers for the others."""

    def __init__(self) -> None:
        super().__init__(hold=self.look)
        self.asked_for: Counter[str] = Counter()
        self.says: dict[str, Reply] = {"bob": Reply(550, "5.1.1", "no such user")}
        self.sessions = 0

    def look(self, question: object) -> object:
        if isinstance(question, questions.Connected):
            self.sessions += 1
        if isinstance(question, questions.RcptTo):
            self.asked_for[question.recipient.address.local_part] += 1
            return self.says.get(question.recipient.address.local_part)
        return None


@pytest.fixture
def ask(loop, serve):
    """ask(address) -> exists?, with a store behind it; `made` sets up another one."""

    def made(port: int, **remember):
        settings = GatewaySettings(
            "gw.example.org",
            ("example.org",),
            "gw",
            "postmaster@example.org",
            (),
            RelaySettings(NextHop("smtp", "127.0.0.1", port, tls="none"), connect_timeout=3.0),
        )
        seconds = {"remember_known": 3600.0, "remember_unknown": 300.0} | remember

        def make():
            return NextHopRecipients(settings, TwistedRuntime(loop.reactor), **seconds)

        directory = loop.call(make)

        def question(*addresses: Address):
            async def all_at_once():
                return await directory._runtime.gather([directory.exists(one) for one in addresses])

            found = loop.call(all_at_once)
            return found if len(addresses) > 1 else found[0]

        return question

    store = Store()
    port, _ = serve(ServerSettings("store.example"), store)
    asked = made(port)
    asked.store, asked.made, asked.port = store, made, port
    return asked


def test_next_hop_is_asked_once_and_nothing_is_sent(ask):
    for _ in range(3):
        assert ask(ALICE) is True
        assert ask(BOB) is False
    assert ask.store.asked_for == {"alice": 1, "bob": 1}
    assert ask.store.messages == []
    assert [one.reverse_path for one in ask.store.asked if isinstance(one, questions.MailFrom)] == [None, None]
    assert ask.store.sessions == 1, "the connection is kept"


def test_questions_that_come_together_are_asked_together_and_each_once(ask):
    many = [Address.parse(f"n{number}@example.org") for number in range(120)]
    assert ask(*many, ALICE, ALICE, BOB) == [True] * 122 + [False]
    assert ask.store.asked_for["alice"] == 1
    # The first alone, the rest in transactions of fifty.
    assert sum(isinstance(one, questions.MailFrom) for one in ask.store.asked) <= 4


@pytest.mark.parametrize(
    "reply",
    [Reply(451, "4.3.0", "later"), Reply(450, "4.2.0", "greylisted"), Reply(554, "5.7.1", "access denied"), Reply(550, "5.7.1", "relaying denied"),
     Reply(530, "5.7.0", "log in"), Reply(503, "5.5.1", "sequence"), Reply(421, "4.7.0", "go away"), Reply(554, "", "no")],
)  # fmt: skip
def test_refusal_for_another_reason_is_no_answer(ask, reply):
    ask.store.says["carol"] = reply
    with pytest.raises(Unavailable) as unknown:
        ask(CAROL)
    assert unknown.value.temporary and unknown.value.reply.code == 451


@pytest.mark.parametrize(
    "reply",
    [Reply(550, "5.1.1", "x"), Reply(550, "", "x"), Reply(553, "", "x"), Reply(550, "5.2.1", "disabled"), Reply(556, "5.1.10", "x")],
)
def test_no_is_no(reply):
    assert _means(reply) is False


def test_next_hop_that_is_away_is_no_answer_and_is_not_tried_for_each_address(ask, loop):
    away = ask.made(free_port())
    began = time.monotonic()
    for number in range(50):
        with pytest.raises(Unavailable):
            away(Address.parse(f"n{number}@example.org"))
    assert time.monotonic() - began < 60
    assert ask(ALICE) is True


def test_what_is_known_holds_while_the_next_hop_is_away(ask, loop):
    assert ask(ALICE) is True
    ask.store.says["alice"] = Reply(451, "4.3.0", "away")
    assert ask(ALICE) is True
    forgetful = ask.made(ask.port, remember_known=0.0)
    with pytest.raises(Unavailable):
        forgetful(ALICE)


def test_next_hop_that_closes_between_questions_is_connected_to_again(ask):
    ask.store.says["carol"] = Reply(421, "4.3.2", "closing")
    assert ask(ALICE) is True
    with pytest.raises(Unavailable):
        ask(CAROL)
    assert ask(ALICE) is True


def test_address_that_needs_smtputf8_where_that_is_not_offered_is_no_answer(ask):
    with pytest.raises(Unavailable):
        ask(Address.parse("jürgen@example.org"))
