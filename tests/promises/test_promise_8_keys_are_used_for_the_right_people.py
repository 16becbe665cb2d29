"""Promise 8: a signature appears only where the origin may be signed for, every name is the identity's, and the key belongs to the From address."""

from __future__ import annotations

import base64
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.builtin.rules import RulesPlugin
from mailsec.model.address import Address
from mailsec.model.session import Identity, Origin
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing.authority import Authority, MemoryKeys
from mailsec.testing.gateway import MemoryGateway

AUTHORITY = Authority()
PEOPLE = ("alice@example.org", "bob@example.org", "mallory@evil.example")
KEYS = MemoryKeys(*(AUTHORITY.issue(person) for person in PEOPLE))
RULES = RulesPlugin(RuleSet([compile_rule("all", sign="required")]))
SOMEBODY = st.sampled_from(PEOPLE)
NAMES = st.sampled_from(["From", "from ", "Sender", "Resent-From", "Resent-Sender", "Reply-To"])
FIELDS = st.lists(st.tuples(NAMES, st.lists(SOMEBODY, max_size=2)), max_size=4)
GATE = MemoryGateway(KEYS, built_in=[RULES])


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([Origin.SUBMISSION, Origin.TRUSTED, Origin.INTERNET]),
    st.one_of(st.none(), SOMEBODY),
    SOMEBODY,
    FIELDS,
    st.sampled_from([True, True, False]),
)
def test_signed_means_entitled(origin, mail_from, login, fields, one_from):
    if one_from:
        fields = [*[field for field in fields if field[0].strip().lower() != "from"], ("From", [login])]
    gate = GATE
    gate.spool.rows.clear()
    header = "".join(f"{name}: {', '.join(people)}\n" for name, people in fields)
    who = Identity(login, (login,), "PLAIN") if origin is not Origin.TRUSTED else None
    gate.send(header + "\nbody\n", origin, mail_from, "x@example.org", who=who)
    signed = [row for row in gate.spool.rows if b"application/pkcs7-signature" in row.octets]
    if not signed:
        return
    identity = login if origin is Origin.SUBMISSION else mail_from
    authors = [people for name, people in fields if name.strip().lower() == "from"]
    assert origin is not Origin.INTERNET and identity is not None
    assert authors == [[identity]] and mail_from in (None, identity)
    assert all(set(people) == {identity} for name, people in fields if name.strip().lower() != "reply-to")
    (key,) = gate.runtime.run(KEYS.keys_for(Address.parse(identity), "sign"))
    assert key.certificate is not None
    encoded = re.search(rb"smime\.p7s.*?\r\n\r\n(.*?)\r\n--", signed[0].octets, re.DOTALL)
    assert encoded is not None and key.certificate in base64.b64decode(encoded[1])
