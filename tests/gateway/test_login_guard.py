"""Guessing passwords gets slow, and sending to many has a limit where a listener says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mailsec.builtin.password_servers import DovecotLogins
from mailsec.errors import Unavailable
from mailsec.gateway.login_guard import LoginGuard
from mailsec.gateway.logins import Logins
from mailsec.gateway.rates import Rates
from mailsec.interfaces import Credentials
from mailsec.model.limits import Limits
from mailsec.model.session import Origin
from mailsec.model.settings import ListenerSettings
from mailsec.store.tallies import Tally
from mailsec.testing import values
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.gateway import settings as memory_settings
from mailsec.testing.runtime import FakeRuntime

from .test_conversation import MESSAGE, Client, Users, plain

LIMITS = Limits(login_failures_per_address=6, login_failures_per_account=3)
ALICE = "alice@example.org"


@pytest.fixture
def guard() -> LoginGuard:
    return LoginGuard(Tally(None, 0, 1, b"k", period=900.0), LIMITS)


def test_account_that_is_guessed_waits_longer_each_time_and_not_for_ever(guard):
    now = 10_000.0
    for number in range(3):
        assert guard.wait(f"192.0.2.{number}", ALICE, now) == 0
        guard.failed(f"192.0.2.{number}", ALICE, now)
    waits = []
    for number in range(10):
        wait = guard.wait(f"198.51.100.{number}", ALICE, now)
        waits.append(wait)
        now += wait
        assert guard.wait(f"198.51.100.{number}", ALICE, now) == 0
        guard.failed(f"198.51.100.{number}", ALICE, now)
    assert waits[:6] == [1, 2, 4, 8, 16, 32] and set(waits[6:]) == {60.0}
    assert guard.wait("203.0.113.1", "bob@example.org", now) == 0, "others log in"
    assert guard.wait("203.0.113.1", ALICE, now + 1800) == 0, "it is forgotten"


def test_who_logged_in_from_there_before_is_not_kept_out_by_who_guesses_elsewhere(guard):
    guard.succeeded("192.0.2.9", ALICE, 9_000.0)
    for number in range(10):
        guard.failed(f"198.51.100.{number}", ALICE, 10_000.0)
    assert guard.wait("192.0.2.9", ALICE, 10_000.0) == 0
    assert guard.wait("192.0.2.8", ALICE, 10_000.0) > 0
    assert guard.wait("192.0.2.8", ALICE.upper(), 10_000.0) > 0


def test_attack_owner_of_an_account_is_kept_out_when_another_worker_has_their_connection(tmp_path):
    def worker(index: int) -> LoginGuard:
        failures, known = (Tally(str(tmp_path / name), index, 2, b"k", period=seconds) for name, seconds in (("f", 900.0), ("k", 86400.0)))
        return LoginGuard(failures, LIMITS, known)

    first, second = worker(0), worker(1)
    first.succeeded("192.0.2.9", ALICE, 9_000.0)
    for number in range(10):
        first.failed(f"198.51.100.{number}", ALICE, 10_000.0)
    assert second.wait("192.0.2.9", ALICE, 10_000.0) == 0
    assert worker(0).wait("192.0.2.9", ALICE, 10_000.0) == 0, "nor after a restart"
    assert second.wait("192.0.2.8", ALICE, 10_000.0) > 0


@pytest.mark.parametrize(
    "written", ["ALICE", "\N{FULLWIDTH LATIN SMALL LETTER A}lice", "al\N{VARIATION SELECTOR-1}ice", "a\N{SOFT HYPHEN}lice"]
)
def test_attack_guessing_at_one_account_by_many_ways_to_write_it(guard, written):
    for number in range(3):
        guard.failed(f"198.51.100.{number}", "alice", 10_000.0)
    assert guard.wait("192.0.2.1", written, 10_000.0) > 0


@pytest.mark.parametrize("addresses", [["192.0.2.1"], ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"]])
def test_address_that_tries_many_names_waits(guard, addresses):
    for number in range(6):
        guard.failed(addresses[number % len(addresses)], f"user{number}", 10_000.0)
    assert all(guard.wait(address, "somebody", 10_000.0) > 0 for address in addresses)
    assert guard.wait("203.0.113.1", "somebody", 10_000.0) == 0


def test_web_mail_on_this_machine_is_no_guesser_for_all_its_users(guard):
    for number in range(100):
        guard.failed("127.0.0.1", f"user{number}", 10_000.0)
        guard.failed("unix:/run/x", f"other{number}", 10_000.0)
    assert guard.wait("127.0.0.1", "somebody", 10_000.0) == guard.wait("unix:/run/x", "somebody", 10_000.0) == 0


class Asked(Users):
    def __init__(self) -> None:
        super().__init__()
        self.questions = 0

    async def authenticate(self, credentials, session):
        self.questions += 1
        return await super().authenticate(credentials, session)


def test_while_somebody_waits_no_password_is_looked_at(kit, guard):
    users = Asked()
    gate = kit.Gate(users)
    pipeline = gate.pipeline
    pipeline.logins = Logins([users], pipeline.admission, gate.runtime, pipeline.plugins, guard)

    def login(password: str) -> str:
        client = Client(gate, Origin.SUBMISSION, peer="192.0.2.50")
        client.say("EHLO x", "STARTTLS", "EHLO x")
        return client.say(plain("alice", password))[-1]

    for _ in range(3):
        assert login("guess").startswith("535 5.7.8")
    assert users.questions == 3
    assert login("secret").startswith("454 4.7.0"), "the right one is told from a wrong one no sooner"
    assert login("guess").startswith("454 4.7.0")
    assert users.questions == 3
    gate.runtime.advance(61)
    assert login("secret").startswith("235")
    assert users.questions == 4
    users.away = True
    for _ in range(20):
        assert login("secret").startswith("454")
    users.away = False
    assert login("secret").startswith("235"), "what could not be said counts against nobody"


@pytest.mark.parametrize(("guesses", "looked_at"), [(["guess"] * 40, 3), (["secret"] * 40, 40)])
def test_attack_a_thousand_guesses_at_once_of_which_none_counts_when_the_others_begin(kit, guard, guesses, looked_at):
    """40 connections from as many addresses: what is wrong stops soon, what is right waits a moment for its turn."""

    class Slow(Asked):
        async def authenticate(self, credentials, session):
            await gate.runtime.sleep(0.05)
            return await super().authenticate(credentials, session)

    users = Slow()
    gate = kit.Gate(users)
    logins = Logins([users], gate.pipeline.admission, gate.runtime, gate.pipeline.plugins, guard)

    async def login(number: int, password: str) -> str:
        session = replace(values.session(Origin.SUBMISSION), peer=f"198.51.100.{number}", identity=None)
        try:
            found = await logins.authenticate(Credentials("PLAIN", "alice", password.encode()), session)
        except Unavailable:
            return "wait"
        return "right" if found is not None else "wrong"

    told = gate.runtime.run(gate.runtime.gather([login(number, password) for number, password in enumerate(guesses)]))
    assert users.questions == looked_at
    assert told.count("wait") == len(guesses) - looked_at
    assert not logins.turns._waiting and not guard._looking, "nothing is kept of them"


def test_one_identity_sends_to_so_many_in_an_hour(kit):
    users = Users()
    gate = kit.Gate(users)
    listeners = tuple(replace(one, recipients_per_hour=3) for one in gate.pipeline.settings.listeners)
    gate.pipeline._rates = type(gate.pipeline._rates)(
        replace(gate.pipeline.settings, listeners=listeners), Tally(None, 0, 1, b"k", period=3600.0), gate.runtime.now
    )
    client = Client(gate, Origin.SUBMISSION)
    client.say("EHLO x", "STARTTLS", "EHLO x", plain("alice", "secret"))
    mail = MESSAGE.replace("carol@example.net", "alice@example.org")
    for _ in range(2):
        assert client.say("MAIL FROM:<alice@example.org>")[-1].startswith("250")
        client.say("RCPT TO:<a@example.net>", "RCPT TO:<b@example.net>")
        assert client.message(mail).startswith("250")
    assert client.say("MAIL FROM:<alice@example.org>")[-1].startswith("450 4.7.1")
    gate.runtime.advance(7200)
    assert client.say("MAIL FROM:<alice@example.org>")[-1].startswith("250")


def test_sending_is_counted_for_each_identity():
    from mailsec.gateway.rates import Rates
    from mailsec.model.address import Address
    from mailsec.model.settings import GatewaySettings, ListenerSettings, NextHop, RelaySettings

    listener = ListenerSettings("trusted", "", "smtp", Origin.TRUSTED, senders=("*",), recipients_per_hour=2)
    settings = GatewaySettings("gw", ("example.org",), "gw", "p@example.org", (listener,), RelaySettings(NextHop("mx")))
    rates = Rates(settings, Tally(None, 0, 1, b"k", period=3600.0), lambda: now)
    session = replace(values.session(Origin.TRUSTED), listener="trusted", identity=None)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    alice, bob = Address.parse("alice@example.org"), Address.parse("bob@example.org")
    rates.count(session, alice, 5)
    assert rates.admit(session, alice).code == 450
    assert rates.admit(session, Address.parse("ALICE@example.org")).code == 450
    assert rates.admit(session, bob) is None
    assert rates.admit(session, None) is None, "a bounce is nobody's"
    assert rates.admit(replace(session, listener="other"), alice) is None


def dovecot(*domains: str) -> DovecotLogins:
    """Takes "alice" for alice in the first domain."""
    return DovecotLogins("unix:/run/dovecot/auth-client", domains or ("example.org",), FakeRuntime())


def count_as(guard: LoginGuard, *authenticators: DovecotLogins) -> None:
    Logins(authenticators, None, FakeRuntime(), MemoryGateway().plugins, guard)


def test_attack_an_account_is_guessed_at_by_two_names(guard):
    count_as(guard, dovecot())
    for number, login in enumerate(("alice", "alice@example.org", "ALICE")):
        assert guard.wait(f"192.0.2.{number}", login, 10_000.0) == 0
        guard.failed(f"192.0.2.{number}", login, 10_000.0)
    waits = [guard.wait("198.51.100.1", login, 10_000.0) for login in ("alice", "Alice@Example.org", "\uff41lice", "al\u00adice", "bob")]
    assert waits == [1, 1, 1, 1, 0]


def test_who_logged_in_by_one_name_is_known_by_the_other(guard):
    count_as(guard, dovecot())
    guard.succeeded("192.0.2.9", "alice", 9_000.0, "alice@example.org")
    for number in range(10):
        guard.failed(f"198.51.100.{number}", "alice", 10_000.0)
    assert [guard.wait("192.0.2.9", login, 10_000.0) for login in ("alice", "alice@example.org")] == [0, 0]


def test_a_login_that_may_be_one_of_two_accounts_counts_for_both_and_opens_the_way_to_the_one_that_it_is(guard):
    count_as(guard, dovecot(), dovecot("example.net"))
    for _ in range(3):
        guard.failed("192.0.2.1", "alice", 10_000.0)
    assert guard.wait("198.51.100.1", "alice@example.org", 10_000.0) == guard.wait("198.51.100.1", "alice@example.net", 10_000.0) == 1
    guard.succeeded("198.51.100.1", "alice", 10_000.0, "alice@example.org")
    assert guard.wait("198.51.100.1", "alice@example.org", 10_000.0) == 0
    assert guard.wait("198.51.100.1", "alice@example.net", 10_000.0) == 1


def test_attack_somebody_sends_twice_as_much_by_two_names():
    listener = ListenerSettings("submission", "", "smtp", Origin.SUBMISSION, recipients_per_hour=3)
    rates = Rates(memory_settings(listeners=(listener,)), Tally(None, 0, 1, b"k", period=3600.0), lambda: datetime(2026, 1, 1, tzinfo=UTC))
    people = [dovecot()._identity(login, "PLAIN") for login in ("alice", "Alice@Example.org", "bob")]
    sessions = [values.session(Origin.SUBMISSION, who=one) for one in people]
    rates.count(sessions[0], None, 3)
    assert [rates.admit(one, None) is None for one in sessions] == [False, False, True]
