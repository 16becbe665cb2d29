"""A whole gateway in memory behind the milter: what becomes of messages, and of their senders."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from mailsec.errors import Reply, TryLater, Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Outcome
from mailsec.model.address import Address
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import Segments
from mailsec.model.protection import ProtectionPlan
from mailsec.model.session import Origin
from mailsec.model.verdict import Decision, Reason
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec_milter.deciding import answer_to

CA = Authority()
ALICE, BOB, CAROL = CA.issue("alice@example.org"), CA.issue("bob@example.net"), CA.issue("carol@example.net")
OWN = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: hi\r\nDate: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"
FOREIGN = OWN.replace(b"alice@example.org", b"carol@example.net").replace(b"bob@example.net", b"alice@example.org")


class Policy:
    """What the rules would plan for mail to a domain ("" is any), and for what comes in."""

    def __init__(self, domain="", *, sign=False, encrypt=False, form="detached", failure="refuse", inbound=False):
        self.domain, self.sign, self.encrypt, self.form, self.failure, self.inbound = domain, sign, encrypt, form, failure, inbound

    @hookimpl
    def plan_protection(self, candidates, plan):
        if plan is not None or self.domain not in ("", candidates.recipient.domain):
            return plan
        common = {"form": self.form, "failure": self.failure, "rule": f"rule {self.domain}"}
        if self.encrypt and candidates.encryption_wait:
            return ProtectionPlan(wait=candidates.encryption_wait, **common)
        if self.encrypt and not candidates.certificates:
            return ProtectionPlan(refusal=Reason("no-certificate", "policy", "no certificate of the recipient"), **common)
        signer = candidates.signers[0] if self.sign and candidates.signers else ""
        recipients = candidates.certificates if self.encrypt else ()
        return ProtectionPlan(bool(signer), self.encrypt, signer, recipients=recipients, **common)

    @hookimpl
    def decide_message(self, verdict):
        if not self.inbound or verdict is None or verdict.trusted:
            return None
        return Decision("hold" if self.failure == "hold" else "refuse", Reply(550, "5.7.1", "a trusted signature is required"), "untrusted")


def gateway(*policies, plugins=(), directory=None, **words):
    words.setdefault("trust", MemoryTrust(CA.anchor))
    return MemoryGateway(*plugins, MemoryKeys(ALICE), directory or MemoryDirectory.of(ALICE, BOB, CAROL), built_in=policies, **words)


SIGN = Policy(sign=True)
ENCRYPT = Policy("example.net", sign=True, encrypt=True)
USERS = {"login_domains": ["example.org"]}


def head(octets: bytes) -> bytes:
    return octets.partition(b"\r\n\r\n")[0]


# -- what comes in --------------------------------------------------------------------------------------------------------------


def test_what_comes_in_gets_its_verdict_on_top_and_is_otherwise_untouched(milter):
    behind = milter.Behind(gateway())
    said, has = behind.passes(FOREIGN, "carol@example.net", "alice@example.org")
    assert [command for command, _ in said] == ["i", "c"]
    assert has.endswith(FOREIGN) and has.startswith(b"Authentication-Results: gw.example.org; smime=none")
    [event] = behind.gateway.events
    assert event.name == "received" and event.fields["queue_id"] == "4bXYZ" and event.fields["verdict"] == "none"
    assert event.fields["action"] == "deliver" and event.fields["origin"] == "internet" and event.fields["message_id"] == "<1@x>"


def test_signed_mail_is_verified_and_not_touched(milter):
    signed = milter.Behind(gateway(SIGN), **USERS).passes(OWN, login="alice")[1]
    for changed, word in ((signed, b"smime=pass"), (signed.replace(b"hello", b"hallo"), b"smime=fail")):
        has = milter.Behind(gateway()).passes(changed, "alice@example.org", "bob@example.org")[1]
        assert word in head(has) and has.endswith(changed)


def test_attack_a_forged_result_does_not_arrive(milter):
    forged = b"Authentication-Results: gw.example.org; smime=pass\r\n"
    _, has = milter.Behind(gateway()).passes(forged + b"X-First: 1\r\n" + FOREIGN, "carol@example.net", "alice@example.org")
    assert head(has).count(b"Authentication-Results") == 1 and b"smime=none" in has and b"X-First: 1" in has


def test_attack_encrypted_mail_is_never_opened_though_the_key_is_there(milter):
    made = gateway(Policy(encrypt=True), directory=MemoryDirectory.of(ALICE, BOB))
    closed = milter.Behind(made, **USERS).passes(
        OWN.replace(b"bob@example.net", b"alice@example.org"), "alice@example.org", "alice@example.org", login="alice"
    )[1]
    assert b"enveloped" in closed or b"authEnveloped" in closed
    said, has = milter.Behind(gateway()).passes(closed, "alice@example.org", "alice@example.org")
    assert has.endswith(closed) and b"hello" not in has and "b" not in [command for command, _ in said]


def test_what_a_rule_wants_trusted_and_is_not_is_refused_or_put_on_hold(milter):
    said, _ = milter.Behind(gateway(Policy(inbound=True))).passes(FOREIGN, "carol@example.net", "alice@example.org")
    assert said == [("y", b"550 5.7.1 a trusted signature is required\0")]
    forged = b"Authentication-Results: gw.example.org; smime=pass\r\n" + FOREIGN
    behind = milter.Behind(gateway(Policy(inbound=True, failure="hold")))
    said, has = behind.passes(forged, "carol@example.net", "alice@example.org")
    assert [command for command, _ in said] == ["m", "q", "c"] and has == FOREIGN
    assert behind.gateway.events[0].fields["action"] == "hold"
    # an MTA that has no quarantine
    mta = behind.mta().feed(milter.offer(version=2, actions=0x1F), milter.client())
    mta.feed(milter.message(FOREIGN.replace(b": ", b":"), "carol@example.net", "alice@example.org"))
    assert mta.packets[-1][0] == "y" and mta.packets[-1][1].startswith(b"550 5.7.1 a rule holds")


def test_attack_a_port_of_strangers_that_bears_the_name_of_the_mta_is_not_trusted(milter):
    # Postfix: {daemon_name} is $myhostname on every port that was given no name
    behind = milter.Behind(gateway(SIGN), trusted_daemons=["mx.example.org"], senders=["@example.org"])
    said, _ = behind.passes(OWN, before=milter.macros("C", daemon_name="mx.example.org", j="mx.example.org"))
    assert [command for command, _ in said] == ["y"] and said[0][1].startswith(b"451 ")
    [event] = behind.gateway.events
    assert "milter_macro_daemon_name" in event.fields["hint"]
    named = milter.Behind(gateway(SIGN), trusted_daemons=["LOCAL"], senders=["@example.org"])
    assert b"multipart/signed" in head(named.passes(OWN, before=milter.macros("C", daemon_name="LOCAL", j="mx.example.org"))[1])


# -- what goes out --------------------------------------------------------------------------------------------------------------


def test_who_has_logged_in_is_signed_for(milter):
    behind = milter.Behind(gateway(SIGN), **USERS)
    said, has = behind.passes(OWN, login="alice")
    assert {command for command, _ in said} == {"h", "b", "c"} and b"multipart/signed" in head(has)
    assert b"Received" not in head(has) and head(has).count(b"Subject: hi") == 1
    [event] = [one for one in behind.gateway.events if one.name == "received"]
    assert event.fields["protection"] == "signed" and event.fields["user"] == "alice"


def test_one_encrypted_copy_serves_all_whom_the_header_shows(milter):
    letter = OWN.replace(b"To: bob@example.net", b"To: bob@example.net, carol@example.net")
    behind = milter.Behind(gateway(ENCRYPT), **USERS)
    _, has = behind.passes(letter, "alice@example.org", "bob@example.net", "carol@example.net", login="alice")
    assert b"pkcs7-mime" in head(has) and b"hello" not in has
    assert base64.b64decode(has.partition(b"\r\n\r\n")[2])
    [event] = [one for one in behind.gateway.events if one.name == "received"]
    assert event.fields["protection"] == "signed and encrypted"


def test_bcc_of_encrypted_mail_would_need_a_copy_of_its_own(milter):
    behind = milter.Behind(gateway(ENCRYPT), **USERS)
    said, _ = behind.passes(OWN, "alice@example.org", "bob@example.net", "carol@example.net", login="alice")
    assert said == [("y", b"550 5.7.1 the recipients need different copies of this message: send it to each of them by itself\0")]


def test_recipients_of_rules_that_sign_alike_share_a_copy_and_others_do_not(milter):
    first, second = Policy("a.example", sign=True), Policy("b.example", sign=True)
    opaque = Policy("c.example", sign=True, form="opaque")
    behind = milter.Behind(gateway(first, second, opaque), **USERS)
    assert b"multipart/signed" in head(behind.passes(OWN, "alice@example.org", "x@a.example", "y@b.example", login="alice")[1])
    said, _ = behind.passes(OWN, "alice@example.org", "x@a.example", "z@c.example", login="alice")
    assert said[0][1].startswith(b"550 5.7.1 the recipients need different copies")


def test_no_certificate_is_a_refusal_with_its_reason_and_hold_is_one_too(milter):
    behind = milter.Behind(gateway(ENCRYPT, directory=MemoryDirectory.of(ALICE)), **USERS)
    said, _ = behind.passes(OWN, login="alice")
    assert said[0][0] == "y" and said[0][1] == b"550 5.7.1 no certificate of the recipient\0"
    behind = milter.Behind(gateway(Policy(encrypt=True, failure="hold"), directory=MemoryDirectory.of(ALICE)), **USERS)
    said, _ = behind.passes(OWN, login="alice")
    assert len(said) == 1 and said[0][1].startswith(b"550 5.7.1 a rule holds this message for a person")


def test_one_refused_recipient_of_two_is_told_and_nobody_gets_it(milter):
    behind = milter.Behind(gateway(ENCRYPT, directory=MemoryDirectory.of(ALICE)), **USERS)
    said, _ = behind.passes(OWN, "alice@example.org", "bob@example.net", "x@other.example", login="alice")
    assert len(said) == 1 and said[0][1].endswith(b"(one of several recipients)\0")


def test_a_directory_that_is_out_is_waited_for_by_the_client(milter):
    directory = MemoryDirectory.of(ALICE, BOB)
    directory.out = Unavailable("the directory is down")
    said, _ = milter.Behind(gateway(ENCRYPT, directory=directory), **USERS).passes(OWN, login="alice")
    assert said[0][1].startswith(b"451 4.")


def test_one_copy_that_must_wait_makes_all_wait(milter):
    """Equal plans, one of them ready: what is ready is not for the one that waits."""
    plan = ProtectionPlan(True, signer="alice@example.org")
    ready = Outcome((), Decision("deliver"), Segments((OWN,)), None, plan=plan)
    waits = Outcome((), Decision("deliver"), None, None, need="token:HSM", plan=plan)
    transaction = values.transaction(OWN, in_session=values.session(Origin.SUBMISSION))
    for outcomes in ([ready, waits], [waits], []):
        answer = answer_to(transaction, outcomes, "gw.example.org", DEFAULT_LIMITS, quarantines=True)
        assert isinstance(answer, Reply) and answer.code == 451


def test_bcc_is_taken_out(milter):
    _, has = milter.Behind(gateway(), **USERS).passes(b"Bcc: secret@example.net\r\n" + OWN, login="alice")
    assert b"secret" not in has


# -- who ------------------------------------------------------------------------------------------------------------------------


class Logins:
    name = "users"
    mechanisms = frozenset({"PEER"})

    @hookimpl
    def register_authenticators(self):
        return [self]

    async def authenticate(self, credentials, session):
        if credentials.login == "out":
            raise Unavailable("the database is away")
        return values.identity("a.user", "alice@example.org") if credentials.login == "a.user" else None


@pytest.mark.parametrize(
    ("login", "settings", "signed"),
    [
        ("alice", USERS, True),
        ("alice@example.org", USERS, True),
        ("alice@elsewhere.example", USERS, False),
        ("bob", USERS, False),
        ("alice", {}, False),
        ("role", {"logins": {"role": ["@example.org"]}}, True),
        ("alice", {"logins": {"alice": ["other@example.org"]}, **USERS}, False),
        ("a.user", {}, True),
        ("al ice", USERS, False),
        ("alice\r\n", USERS, False),
    ],
)
def test_which_login_may_use_which_address(milter, login, settings, signed):
    said, has = milter.Behind(gateway(SIGN, plugins=[Logins()]), **settings).passes(OWN, login=login)
    if signed:
        assert b"multipart/signed" in head(has)
    else:
        assert said[0][0] == "y" and said[0][1].startswith(b"550 5.7.1 ")


def test_whose_login_cannot_be_looked_up_comes_back(milter):
    said, _ = milter.Behind(gateway(SIGN, plugins=[Logins()])).passes(OWN, login="out")
    assert said[0][1].startswith(b"451 4.4.0")


def test_attack_a_stranger_with_our_address_in_from_is_not_signed_for(milter):
    for settings in ({}, USERS, {"trusted_daemons": ["ORIGINATING"], "senders": ["@example.org"]}):
        _, has = milter.Behind(gateway(SIGN), **settings).passes(OWN)
        assert b"signed" not in head(has) and b"smime=none" in head(has)


def test_a_login_counts_for_nothing_where_all_is_internet(milter):
    _, has = milter.Behind(gateway(SIGN), origin="internet", **USERS).passes(OWN, login="alice")
    assert b"smime=none" in head(has)


def test_ports_whose_clients_the_mta_has_checked(milter):
    behind = milter.Behind(gateway(SIGN), trusted_daemons=["ORIGINATING"], senders=["@example.org"])
    before = milter.macros("C", daemon_name="ORIGINATING")
    assert b"multipart/signed" in head(behind.passes(OWN, before=before)[1])
    other = behind.passes(OWN.replace(b"From: alice", b"From: bob"), before=before)[0]
    assert other[0][1].startswith(b"550 5.7.1 you may not use the address in From")
    stranger = behind.passes(OWN, "eve@elsewhere.example", before=before)[0]
    assert stranger == [("y", b"550 5.7.1 this sender may not send here\0")]
    # a bounce of the MTA itself: relayed, never signed
    assert b"signed" not in head(behind.passes(OWN, "", before=before)[1])
    assert b"multipart/signed" in head(milter.Behind(gateway(SIGN), origin="trusted", senders=["@example.org"]).passes(OWN)[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": "trusted"},
        {"trusted_daemons": ["X"]},
        {"senders": ["*"]},
        {"senders": ["@"]},
        {"senders": ["nobody"]},
        {"peers": ["everybody"]},
        {"peers": ["10.0.0.1/8"]},
        {"logins": {"a": ["b c"]}},
        {"origin": "submission"},
        {"give_up_seconds": 0},
        {"colour": "red"},
    ],
)
def test_settings_that_mean_nothing_are_mistakes(milter, wrong):
    with pytest.raises(ValueError):
        milter.Behind(gateway(), **wrong)


@pytest.mark.parametrize(
    ("peer", "welcome"),
    [("127.0.0.1", True), ("::1", True), ("unix:/run/x", True), ("192.0.2.1", False), ("fe80::1%eth0", False), ("x", False)],
)
def test_who_may_connect(milter, peer, welcome):
    assert milter.Behind(gateway()).settings.welcomes(peer) is welcome


# -- what fails -----------------------------------------------------------------------------------------------------------------


class Fails:
    def __init__(self, error):
        self.error = error

    @hookimpl
    def decide_message(self):
        raise self.error


def test_our_own_failures_are_tried_again(milter):
    said, _ = milter.Behind(gateway(SIGN, plugins=[Fails(ValueError("bug"))]), **USERS).passes(OWN, login="alice")
    assert said == [("y", b"451 4.3.0 local policy error, try again later\0")]

    class Refuses:
        @hookimpl
        def decide_message(self):
            return Decision("refuse", Reply(550, "5.7.1", "not today"))

    assert milter.Behind(gateway(plugins=[Refuses()])).passes(OWN)[0] == [("y", b"550 5.7.1 not today\0")]


def test_a_scratch_that_is_full_is_tried_again(milter):
    behind = milter.Behind(gateway())
    mta = behind.mta()

    class Full:
        def append(self, chunk):
            raise TryLater("no room", reply=Reply(452, "4.3.1", "insufficient system storage"))

        def discard(self):
            pass

    behind.gateway.runtime.scratch = Full
    mta.feed(milter.offer(), milter.client(), milter.message(OWN))
    assert mta.packets[1:] == [("y", b"452 4.3.1 insufficient system storage\0")]


class Slow:
    """A plugin that takes its time."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.runtime = None

    @hookimpl
    def check_message(self):
        return self.wait()

    async def wait(self):
        await self.runtime.sleep(self.seconds)


def test_the_mta_hears_of_us_while_it_takes_long(milter):
    slow = Slow(25)
    made = gateway(plugins=[slow])
    slow.runtime = made.runtime
    said, has = milter.Behind(made, progress_seconds=10).passes(OWN)
    assert [command for command, _ in said] == ["p", "p", "i", "c"] and has.endswith(OWN)


def test_what_takes_too_long_is_tried_again(milter):
    slow = Slow(25)
    made = gateway(plugins=[slow])
    slow.runtime = made.runtime
    said, _ = milter.Behind(made, progress_seconds=2, give_up_seconds=5).passes(OWN)
    assert [command for command, _ in said] == ["p", "p", "y"] and said[-1][1] == b"451 4.3.0 it took too long, try again later\0"


def test_an_mta_that_goes_leaves_nothing_behind(milter):
    behind = milter.Behind(gateway())
    mta = behind.mta().feed(milter.offer(), milter.client(), milter.message(OWN)[:-30])
    mta.conversation.closed()
    mta.conversation.closed()
    assert mta.conversation._scratch is None
    slow = Slow(1000)
    made = gateway(plugins=[slow], limits=replace(DEFAULT_LIMITS, hook_timeout=2000))
    slow.runtime = made.runtime
    mta = milter.Behind(made).mta()
    answers = []
    mta.run = lambda value: answers.append(value)
    mta.feed(milter.offer(), milter.client(), milter.message(OWN))
    mta.conversation.closed()
    for answer in answers:
        answer.close()
    assert made.runtime.run(made.runtime.sleep(1)) is None and not made.runtime.failures and not made.events


def test_who_is_no_mta_is_told_of(milter):
    behind = milter.Behind(gateway())
    behind.mta().feed(b"GET / HTTP/1.1\r\n\r\n")
    [event] = behind.gateway.events
    assert event.name == "milter refused" and "octets" in event.fields["reason"] and event.fields["peer"] == "127.0.0.1"


def test_addresses_are_compared_as_addresses(milter):
    assert milter.Behind(gateway(), **USERS).settings.addresses_of("Alice@EXAMPLE.org") == (str(Address.parse("Alice@EXAMPLE.org")),)
