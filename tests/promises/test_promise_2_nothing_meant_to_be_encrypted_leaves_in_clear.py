"""Promise 2: what a rule, a partner or a plugin wants encrypted leaves encrypted or not at all, and no report holds its body."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import CryptoError, KeyUnavailable, Refused, Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import FoundCertificate
from mailsec.model.partner import PartnerSettings
from mailsec.model.protection import ProtectionPlan
from mailsec.model.queue import State
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.smime.encrypted import encrypted_for
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryPartners, MemoryTrust
from mailsec.testing.gateway import MemoryGateway

BODY = "the secret itself"
AUTHORITY = Authority()
ALICE = AUTHORITY.issue("alice@example.org")
PEOPLE = {f"p{number}@example.net": AUTHORITY.issue(f"p{number}@example.net") for number in range(4)}
NOBODY = "nobody@example.net"
LABELS = {
    "plain": "",
    "merely labelled enveloped-data": "Content-Type: application/pkcs7-mime; smime-type=enveloped-data\n",
    "merely labelled, old name": 'Content-Type: application/x-pkcs7-mime; name="smime.p7m"\n',
    "merely labelled, in base64": "Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n",
    "a report": "Content-Type: multipart/report; boundary=b; report-type=delivery-status\n",
    "an invitation": "Content-Type: text/calendar; method=REQUEST\n",
}


def letter(label: str = "", to: str = "p0@example.net") -> str:
    body = base64.b64encode(BODY.encode()).decode() if "base64" in label else BODY
    return f"From: alice@example.org\nTo: {to}\nSubject: hi\n{label}\n{body}\n"


def gateway(*plugins, directory=None, partners=None, keys=None, **words) -> MemoryGateway:
    rules = [compile_rule("plain", {"recipient": "@plain.example"}, encrypt="never"), compile_rule("all", **words)]
    return MemoryGateway(
        *plugins,
        keys or MemoryKeys(ALICE),
        directory or MemoryDirectory.of(ALICE, *PEOPLE.values()),
        built_in=[RulesPlugin(RuleSet(rules))],
        trust=MemoryTrust(AUTHORITY.anchor),
        partners=partners,
    )


def assert_nothing_is_readable(gate: MemoryGateway) -> None:
    """Of what leaves: no body in any encoding, and what is no report is encrypted."""
    for row in gate.spool.in_state(State.READY):
        assert BODY.encode() not in row.octets and base64.b64encode(BODY.encode())[:20] not in row.octets
        if row.entry.envelope.reverse_path is not None:
            assert encrypted_for(row.entry.segments, most=10) > 0
    assert all(row.entry.secret for row in gate.spool.rows if row.entry.state is not State.READY)


class WantsEncryption:
    @hookimpl
    def plan_protection(self, plan):
        return replace(plan, encrypt=True)


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("sign", ["required", "never"])
@pytest.mark.parametrize("by", ["rule", "partner", "plugin"])
def test_whatever_it_is_labelled_as_and_whoever_wants_it_encrypted(label, sign, by):
    partners = MemoryPartners(**{one: PartnerSettings(encrypt="required") for one in (*PEOPLE, NOBODY)})
    if by == "rule":
        gate = gateway(sign=sign, encrypt="required")
    elif by == "partner":
        gate = gateway(sign=sign, partners=partners)
    else:
        gate = gateway(WantsEncryption(), sign=sign)
    assert gate.submit(letter(label), "p0@example.net", "p1@example.net", NOBODY).code == 250
    assert_nothing_is_readable(gate)
    assert len([row for row in gate.rows if row.envelope.reverse_path is not None]) == 2
    assert gate.submit(letter(label), NOBODY).code == 550


# -- everything that can go wrong, together ------------------------------------------------------------------------------------------


class Chaos:
    """A plugin that does what `acts` says."""

    def __init__(self, act: str) -> None:
        self.act = act

    @hookimpl
    def plan_protection(self, plan, candidates):
        changes = {
            "drops": {"encrypt": False, "recipients": ()},
            "forgets recipients": {"recipients": ()},
            "names a stranger": {"recipients": ("0" * 64,)},
            "only the sender": {"recipients": candidates.own_certificates},
            "another profile": {"profile": "legacy"},
            "waits": {"wait": "token:x"},
        }
        if self.act == "starts afresh":
            return ProtectionPlan()
        return replace(plan, **changes[self.act]) if self.act in changes else None

    @hookimpl
    def annotate_message(self):
        if self.act == "relabels":
            return [("Content-Type", "text/plain")]
        return [("X-Copy", BODY)] if self.act == "writes the subject" else None


class Engine:
    """The real one, which fails as `fault` says."""

    def __init__(self, real, fault: str) -> None:
        self._real, self._fault = real, fault

    def __getattr__(self, name):
        return getattr(self._real, name)

    async def protect(self, message, plan, signers, at, recipients=()):
        if plan.encrypt:
            if self._fault == "refuses two" and len(recipients) > 1:
                raise Refused("a certificate that cannot receive")
            errors = {"crypto": CryptoError("it failed"), "refuses": Refused("no"), "token": KeyUnavailable("out", stage="token:x")}
            if self._fault in errors:
                raise errors[self._fault]
            if self._fault == "signs only":
                return await self._real.protect(message, replace(plan, encrypt=False), signers, at)
            if self._fault == "one less":
                return await self._real.protect(message, plan, signers, at, recipients[:1])
        return await self._real.protect(message, plan, signers, at, recipients)


DIRECTORIES = st.sampled_from(["right", "out", "raises", "lies", "empty"])
ACTS = ["", "drops", "forgets recipients", "names a stranger", "only the sender", "another profile", "waits", "starts afresh", "relabels"]
FAULTS = ["", "crypto", "refuses", "refuses two", "token", "signs only", "one less"]


@settings(max_examples=60, deadline=None)
@given(
    DIRECTORIES,
    st.sampled_from(ACTS),
    st.sampled_from(FAULTS),
    st.sampled_from(["required", "if-possible", "never"]),
    st.sampled_from(["refuse", "hold"]),
    st.sampled_from(["sign", "triple"]),
    st.lists(st.sampled_from([*PEOPLE, NOBODY]), min_size=1, max_size=4, unique=True),
    st.sampled_from(list(LABELS.values())),
)
def test_whatever_fails(directory, act, fault, sign, failure, wrap, recipients, label):
    known = MemoryDirectory.of(ALICE, *PEOPLE.values())
    if directory == "out":
        known.out = Unavailable("away")
    elif directory == "raises":
        known.out = RuntimeError("a bug")
    elif directory == "lies":
        stranger = Authority("Stranger").issue("p0@example.net").certificate
        known.found = [FoundCertificate(stranger, "memory"), FoundCertificate(b"junk", "memory"), *known.found]
    elif directory == "empty":
        known.found = []
    gate = gateway(Chaos(act), directory=known, sign=sign, encrypt="required", failure=failure, wrap=wrap)
    tools = gate.pipeline._tools
    object.__setattr__(tools, "engine", Engine(tools.engine, fault))
    gate.submit(letter(label), *recipients)
    assert_nothing_is_readable(gate)
    for row in [row for row in gate.rows if row.state is State.RAW]:
        gate.resume(row.id)
        assert_nothing_is_readable(gate)


def test_a_recipient_whose_rule_says_never_gets_clear_text_and_the_others_do_not():
    gate = gateway(encrypt="required")
    gate.submit(letter(to="p0@example.net, x@plain.example"), "p0@example.net", "x@plain.example")
    plain = {str(row.entry.envelope.recipients[0].address): BODY.encode() in row.octets for row in gate.spool.in_state(State.READY)}
    assert plain == {"p0@example.net": False, "x@plain.example": True}


def test_what_waited_goes_on_under_the_rules_of_that_moment():
    directory = MemoryDirectory()
    directory.out = Unavailable("away")
    gate = gateway(encrypt="required", failure="hold", directory=directory)
    gate.submit(letter(), "p0@example.net")
    directory.out = None
    gate.resume(gate.rows[0].id)
    assert [(row.state, row.secret) for row in gate.rows] == [(State.HELD, True)]
