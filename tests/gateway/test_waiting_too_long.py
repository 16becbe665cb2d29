"""What waits too long ends in a report or on hold with one, never in silence, and never in clear."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import KeyUnavailable, Unavailable
from mailsec.gateway.bounce import overdue_report
from mailsec.hookspecs import hookimpl
from mailsec.model.queue import QueueEntry, State
from mailsec.model.session import Origin
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import EPOCH, FakeRuntime

AUTHORITY = Authority()
BOB = AUTHORITY.issue("bob@example.net")
SECRET = b"the secret itself"
LETTER = "From: alice@example.org\nTo: bob@example.net\nSubject: hi\n\nthe secret itself\n"
FIVE_DAYS = 432_000.0


def later(gate: MemoryGateway, seconds: float) -> None:
    async def wait() -> None:
        await gate.runtime.sleep(seconds)

    gate.runtime.run(wait())


def waiting(**recipient) -> tuple[MemoryGateway, MemoryDirectory]:
    directory = MemoryDirectory.of(BOB)
    directory.out = Unavailable("away")
    rules = RulesPlugin(RuleSet([compile_rule("all", encrypt="required")]))
    gate = MemoryGateway(MemoryKeys(), directory, built_in=[rules], trust=MemoryTrust(AUTHORITY.anchor))
    assert gate.submit(LETTER, "bob@example.net", **recipient).code == 250
    return gate, directory


def test_the_sender_is_told_when_it_has_waited_too_long():
    gate, _ = waiting()
    later(gate, FIVE_DAYS - 60)
    gate.resume(gate.rows[0].id)
    assert (gate.rows[0].state, gate.rows[0].need) == (State.RAW, "directory")
    later(gate, 120)
    gate.resume(gate.rows[0].id)
    (warning, (entry, octets)) = gate.spool.rows
    assert b"Action: delayed" in warning.octets
    assert entry.state is State.READY and entry.envelope.reverse_path is None
    assert [str(one.address) for one in entry.envelope.recipients] == ["alice@example.org"]
    assert b"Status: 4.4.7" in octets and b"no directory can say" in octets and SECRET not in octets


def test_what_comes_back_in_time_goes_on():
    gate, directory = waiting()
    later(gate, FIVE_DAYS - 60)
    directory.out = None
    gate.resume(gate.rows[0].id)
    assert [row.entry.state for row in gate.spool.rows] == [State.READY] and SECRET not in gate.ready[0]


class TokenIsOut:
    """A key store whose token was pulled."""

    name = "HSM"

    @hookimpl
    def register_key_stores(self):
        return [self]

    async def key(self, reference):
        return None

    async def keys_for(self, address, usage):
        raise KeyUnavailable("the token HSM 1 is away", stage="token:HSM 1")


ENCRYPTED = (
    "From: carol@example.net\nTo: alice@example.org\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n"
    "Content-Transfer-Encoding: base64\n\nMIAGCSqGSIb3DQEHA6CAMIACAQAxADCABgkqhkiG9w0BBwEwHQYJYIZIAWUDBAEqBBAAAAAAAAAA\nAAAAAAAAAAAAAAAAAAAAAAAA\n"
)


def test_promise_6_a_stranger_is_told_nothing_and_the_postmaster_is():
    gate = MemoryGateway(TokenIsOut(), built_in=[RulesPlugin(RuleSet(()))])
    assert gate.arrive(ENCRYPTED).code == 250
    gate.resume(gate.rows[0].id)
    assert [row.need for row in gate.rows] == ["token:HSM 1"]
    later(gate, FIVE_DAYS + 1)
    gate.resume(gate.rows[0].id)
    assert sorted(row.state for row in gate.rows) == [State.HELD, State.READY]
    (report,) = [row.entry for row in gate.spool.rows if row.entry.state is State.READY]
    assert [str(one.address) for one in report.envelope.recipients] == ["postmaster@example.org"]


@pytest.mark.parametrize("number", [1, 150])
def test_the_reminder_names_what_is_on_hold_and_nothing_from_inside(number):
    entries = [
        QueueEntry(
            f"id{index}",
            State.HELD,
            False,
            "alice@example.org",
            (),
            1,
            EPOCH,
            None,
            0,
            Origin.SUBMISSION,
            "l",
            "",
            "no key\r\nX: y",
            "",
            "",
        )
        for index in range(number)
    ]
    random = FakeRuntime().random
    report = overdue_report(
        entries, id="r", at=EPOCH + timedelta(days=9), hostname="gw", postmaster="postmaster@example.org", random=random
    )
    text = report.segments.join()
    assert text.count(b"since 2026-01-01") == min(number, 100) and (b"and 50 more" in text) is (number == 150)
    assert b"\r\nX: y" not in text and text.endswith(b"--\r\n") and report.rule == "report"


def test_the_sender_is_told_once_that_it_takes_long():
    gate, _ = waiting()
    row = gate.rows[0].id
    for hours, reports in ((3.9, 0), (0.2, 1), (1.0, 1), (24.0, 1)):
        later(gate, hours * 3600)
        gate.resume(row)
        told = [octets for entry, octets in gate.spool.rows if entry.state is State.READY]
        assert len(told) == reports
    assert b"Action: delayed" in told[0] and b"no directory can say" in told[0] and SECRET not in told[0]
    assert b"Will-Retry-Until: " in told[0]


def test_who_wants_no_word_of_delays_gets_none():
    gate, _ = waiting()
    (row,) = gate.spool.rows
    envelope = row.entry.envelope
    recipients = tuple(replace(one, notify="FAILURE") for one in envelope.recipients)
    gate.spool.rows[0] = row._replace(entry=replace(row.entry, envelope=replace(envelope, recipients=recipients)))
    later(gate, 5 * 3600)
    gate.resume(row.entry.id)
    assert [entry.state for entry, _ in gate.spool.rows] == [State.RAW]
