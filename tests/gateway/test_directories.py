"""The ranked resolver: order, what is kept, one question for all who ask it, and failures that are waited for and never taken for a no."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailsec.errors import Unavailable
from mailsec.gateway.correspondents import DIRECTORY
from mailsec.gateway.directories import Directories
from mailsec.interfaces import FoundCertificate
from mailsec.model.address import Address
from mailsec.model.verdict import Reason
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import EPOCH, FakeRuntime

AUTHORITY = Authority()
BOB = AUTHORITY.issue("bob@example.net")
DAVE = AUTHORITY.issue("dave@example.net")


def address(text: str) -> Address:
    return Address.parse(text)


def elsewhere(*people, name: str = "ldap") -> MemoryDirectory:
    return MemoryDirectory.of(*people, name=name, local=False)


class Slow(MemoryDirectory):
    """Answers when `gate` fires."""

    gate = None

    async def certificates(self, address):
        found = await super().certificates(address)
        await self.gate.wait()
        return found


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


def test_the_same_question_is_out_once_and_who_gives_up_stops_nobody_else(runtime):
    slow = Slow.of(BOB, name="ldap", local=False)
    slow.gate = runtime.signal()
    directories = Directories([slow], runtime)
    bob = address("bob@example.net")

    async def ask_all():
        first = runtime.start(directories.look_up(slow, bob), "first")
        others = [runtime.start(directories.look_up(slow, bob), "other") for _ in range(3)]
        await runtime.sleep(1)
        first.cancel()
        slow.gate.fire()
        return [await one for one in others]

    answers = runtime.run(ask_all())
    assert [[one.der for one in answer] for answer in answers] == [[BOB.certificate]] * 3
    assert [str(one) for one in slow.asked] == ["bob@example.net"]


def test_a_failure_is_everybodys_who_waits_for_it_and_each_has_an_error_of_their_own(runtime):
    slow = Slow.of(BOB, name="ldap", local=False)
    slow.gate = runtime.signal()
    directories = Directories([slow], runtime)
    slow.out = Unavailable("away", hint="start it")

    async def ask_all():
        tasks = [runtime.start(directories.look_up(slow, address("bob@example.net")), "one") for _ in range(2)]
        errors = []
        for task in tasks:
            try:
                await task
            except Unavailable as error:
                errors.append(error)
        return errors

    first, second = runtime.run(ask_all())
    assert first is not second and first.message == second.message and "away" in first.message and first.hint == "start it"


def test_nobody_known_is_kept_for_a_minute_and_somebody_for_ten(runtime):
    directory = elsewhere(BOB)
    directories = Directories([directory], runtime)

    def ask(who: str, after: float) -> int:
        runtime.advance(after)
        runtime.run(directories.look_up(directory, address(who)))
        return len(directory.asked)

    assert [ask("nobody@example.net", after) for after in (0, 59, 2)] == [1, 1, 2]
    assert [ask("bob@example.net", after) for after in (0, 599, 2)] == [3, 3, 4]


def test_attack_a_domain_whose_servers_hang_takes_a_directory_from_all_others(runtime):
    directory = elsewhere(BOB)
    directories = Directories([directory], runtime)
    directory.out = Unavailable("its zone is bogus")
    for _ in range(3):
        with pytest.raises(Unavailable):
            runtime.run(directories.look_up(directory, address("a@bad.example")))
    assert len(directory.asked) == 1, "that domain is left alone for a while"
    directory.out = None
    assert runtime.run(directories.look_up(directory, address("bob@example.net")))
    with pytest.raises(Unavailable, match="a moment ago"):
        runtime.run(directories.look_up(directory, address("b@bad.example")))
    runtime.advance(61)
    assert runtime.run(directories.look_up(directory, address("b@bad.example"))) == ()


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3), TimeoutError()])
def test_a_directory_that_breaks_is_left_alone_altogether(runtime, error):
    directory = elsewhere(BOB)
    directories = Directories([directory], runtime)
    directory.out = error
    for domain in ("a.example", "b.example"):
        with pytest.raises(Unavailable):
            runtime.run(directories.look_up(directory, address(f"x@{domain}")))
    assert len(directory.asked) == 1


def test_something_else_than_certificates_is_a_failure_and_not_nobody(runtime):
    class Wrong(MemoryDirectory):
        async def certificates(self, address):
            return [b"der"]

    wrong = Wrong(local=False)
    with pytest.raises(Unavailable):
        runtime.run(Directories([wrong], runtime).look_up(wrong, address("bob@example.net")))


def asked_of(gate: MemoryGateway, who: str):
    return gate.runtime.run(gate.pipeline.correspondent(address(who)))


def test_every_directory_is_told_of_in_order_with_what_came_of_it():
    database, ldap, smimea = MemoryDirectory(name="database"), elsewhere(BOB), elsewhere(BOB, DAVE, name="smimea")
    gate = MemoryGateway(database, ldap, smimea, trust=MemoryTrust(AUTHORITY.anchor))
    known = asked_of(gate, "bob@example.net")
    assert [one.found.source for one in known.chosen] == ["memory"]
    assert [(one.directory, one.found, one.failed) for one in known.asked] == [
        ("database", 0, False),
        ("ldap", 1, False),
        ("smimea", None, False),
    ]
    assert "one before it" in known.asked[2].why and smimea.asked == []
    ldap.out = Unavailable("away")
    known = asked_of(gate, "dave@example.net")
    assert [(one.found, one.failed) for one in known.asked] == [(0, False), (None, True), (1, False)] and known.chosen
    assert "away" in known.asked[1].why
    known = asked_of(gate, "nobody@example.net")
    assert not known.chosen and known.wait == DIRECTORY and known.missing.code == "directory-out"


def test_why_a_certificate_of_a_directory_that_is_asked_later_was_not_chosen():
    stranger = Authority("Stranger").issue("bob@example.net").certificate
    ldap = MemoryDirectory(FoundCertificate(stranger, "ldap", origin="uid=bob"), name="ldap", local=False)
    smimea = MemoryDirectory(FoundCertificate(stranger, "smimea", trusted_binding=True), name="smimea", local=False)
    gate = MemoryGateway(MemoryDirectory(name="database"), ldap, smimea, trust=MemoryTrust(AUTHORITY.anchor))
    known = asked_of(gate, "bob@example.net")
    assert [one.found.source for one in known.chosen] == ["smimea"], "the same certificate, for which one of them vouches"
    assert [(one.found.origin, one.reason.code) for one in known.others] == [("uid=bob", "issuer-not-found")]


def test_attack_a_directory_elsewhere_vouches_for_what_a_person_rejected():
    rejected = Reason("recipient-rejected", "policy", "somebody decided that it is not used")
    database = MemoryDirectory(FoundCertificate(BOB.certificate, "database", against=rejected), name="database")
    smimea = MemoryDirectory(FoundCertificate(BOB.certificate, "smimea", trusted_binding=True), name="smimea", local=False)
    gate = MemoryGateway(database, smimea, trust=MemoryTrust(AUTHORITY.anchor))
    known = asked_of(gate, "bob@example.net")
    assert not known.chosen and [one.reason.code for one in known.others] == ["recipient-rejected"]


def test_attack_forged_answers_of_one_directory_keep_the_same_certificate_of_another_out():
    unsigned = Reason("smimea-unsigned", "policy", "DNSSEC does not vouch for the record")
    smimea = MemoryDirectory(FoundCertificate(BOB.certificate, "smimea", against=unsigned), name="smimea", local=False)
    ldap = MemoryDirectory(FoundCertificate(BOB.certificate, "ldap"), name="ldap", local=False)
    gate = MemoryGateway(smimea, ldap, trust=MemoryTrust(AUTHORITY.anchor))
    known = asked_of(gate, "bob@example.net")
    assert [one.found.source for one in known.chosen] == ["ldap"]
    assert [one.reason.code for one in known.others] == ["smimea-unsigned"]


def test_what_several_directories_know_is_judged_together_and_the_first_that_has_one_of_use_ends_the_question():
    """An old certificate in the database keeps nobody from the new one that is published; what was passed over is told with its reason."""
    old = AUTHORITY.issue("bob@example.net", at=EPOCH - timedelta(days=400), days=100).certificate
    database = MemoryDirectory(FoundCertificate(old, "database"), name="database")
    ldap = MemoryDirectory(FoundCertificate(BOB.certificate, "ldap", origin="uid=bob"), name="ldap", local=False)
    smimea = MemoryDirectory(FoundCertificate(BOB.certificate, "smimea", trusted_binding=True), name="smimea", local=False)
    gate = MemoryGateway(ldap, smimea, database, trust=MemoryTrust(AUTHORITY.anchor))
    known = asked_of(gate, "bob@example.net")
    assert [one.found.source for one in known.chosen] == ["ldap"] and smimea.asked == []
    assert [(one.found.source, one.reason.code) for one in known.others] == [("database", "expired")]
    assert [(one.directory, one.found) for one in known.asked] == [("database", 1), ("ldap", 1), ("smimea", None)]
