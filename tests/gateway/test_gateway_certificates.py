"""One certificate for everybody of a partner's domain: the gateway encrypts to it, after one's own, and believes nobody for it."""

from __future__ import annotations

import pytest

from mailsec.app.database_plugin import DatabasePlugin
from mailsec.builtin.rules import RulesPlugin
from mailsec.keys.software import SoftwareKey
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.store.bindings import Bindings
from mailsec.store.certdb import CertDb
from mailsec.store.learnt import Learnt
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec.x509.certificate import load_certificate
from tests.gateway.test_encryption import for_whom, plan_of

AUTHORITY = Authority()
PARTNER = AUTHORITY.issue("gateway@gw.example", kind="rsa-2048")
BOB = AUTHORITY.issue("bob@partner.example")
LETTER = "From: alice@example.org\nTo: {to}\nSubject: x\n\nthe secret itself\n"


def serial(key: SoftwareKey) -> int:
    return load_certificate(key.certificate).serial


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("template")
    directory.chmod(0o700)
    with CertDb.create(str(directory / "x.db"), b"", at=EPOCH, cost=2) as database:
        database.add(AUTHORITY.certificate, "CA", trust=TrustFlags.parse(",C,"), domains=("*",), at=EPOCH)
        database.add(PARTNER.certificate, "gateway", at=EPOCH)
        Bindings(database).bind("gateway", ["@partner.example"])
    return directory / "x.db"


class Home(MemoryGateway):
    """alice's gateway, whose database holds the certificate of the partner's."""

    def __init__(self, database: CertDb) -> None:
        runtime = FakeRuntime()
        self.database, known = database, DatabasePlugin(database, runtime)
        rules = [compile_rule("out", {"sender": "@example.org"}, encrypt="required"), compile_rule("in")]
        keys = MemoryKeys(AUTHORITY.issue("alice@example.org"))
        super().__init__(known, keys, built_in=[RulesPlugin(RuleSet(rules))], trust=known, runtime=runtime, learner=known)

    def add(self, key: SoftwareKey, nickname: str) -> None:
        self.database.add(key.certificate, nickname, at=EPOCH)
        self.moment()

    def moment(self) -> None:
        async def moment() -> None:
            await self.runtime.sleep(2)

        self.runtime.run(moment())

    def writes(self, to: str) -> set[int]:
        """The serial numbers of whom a letter is encrypted for."""
        assert self.submit(LETTER.format(to=to), to).code == 250
        assert b"the secret" not in self.ready[-1]
        return for_whom(self.ready[-1])

    def refuses(self, to: str) -> bool:
        return self.submit(LETTER.format(to=to), to).code == 550


@pytest.fixture
def home(template, tmp_path):
    import shutil

    tmp_path.chmod(0o700)
    shutil.copy(template, tmp_path / "x.db")
    with CertDb.open(str(tmp_path / "x.db"), password=b"") as database:
        yield Home(database)


def test_mail_to_everybody_of_the_domain_is_encrypted_to_the_gateway(home):
    assert home.writes("bob@partner.example") == home.writes("Dave@Partner.Example") == {serial(PARTNER)}
    assert home.refuses("bob@sub.partner.example") and home.refuses("bob@partner.example.evil.example")


def test_ones_own_certificate_alone_is_used_where_there_is_one(home):
    # An elliptic curve beside the RSA key of the gateway: not both, as for one holder with two kinds of keys.
    home.add(BOB, "bob")
    assert home.writes("bob@partner.example") == {serial(BOB)}
    assert home.writes("dave@partner.example") == {serial(PARTNER)}


@pytest.mark.parametrize(("word", "whose"), [("reject", PARTNER), ("block", PARTNER), ("pin", BOB)])
def test_what_a_person_decides_of_ones_own(home, word, whose):
    home.add(BOB, "bob")
    Learnt(home.database).decide(load_certificate(BOB.certificate).fingerprint.hex(), word)
    home.moment()
    assert home.writes("bob@partner.example") == {serial(whose)}


def test_a_pinned_gateway_is_not_pinned_for_everybody(home):
    home.add(BOB, "bob")
    Learnt(home.database).decide(load_certificate(PARTNER.certificate).fingerprint.hex(), "pin")
    home.moment()
    assert home.writes("bob@partner.example") == {serial(BOB)} and home.writes("dave@partner.example") == {serial(PARTNER)}


@pytest.mark.parametrize("word", ["reject", "block"])
def test_a_gateway_that_a_person_does_not_want(home, word):
    Learnt(home.database).decide(load_certificate(PARTNER.certificate).fingerprint.hex(), word)
    home.moment()
    assert home.refuses("bob@partner.example")


def test_attack_a_bound_certificate_of_a_stranger_needs_an_authority_all_the_same(home):
    stranger = Authority("Stranger").issue("gateway@gw.example")
    home.add(stranger, "stranger")
    Bindings(home.database).bind("stranger", ["@other.example"])
    home.moment()
    assert home.refuses("bob@other.example")


def test_attack_what_the_persons_program_reads_does_not_decide_for_the_gateway(home):
    other = MemoryGateway(
        MemoryKeys(BOB), built_in=[RulesPlugin(RuleSet([compile_rule("all", sign="required")]))], trust=MemoryTrust(AUTHORITY.anchor)
    )
    sender = "bob@partner.example"
    assert (
        other.submit(LETTER.replace("alice@example.org", sender), "x@x.example", sender=sender, who=values.identity("bob", sender)).code
        == 250
    )
    home.arrive(other.ready[0], sender=sender)
    home.moment()
    assert Learnt(home.database).capabilities(Address.parse(sender)) is not None
    Learnt(home.database).decide(load_certificate(BOB.certificate).fingerprint.hex(), "reject")
    home.moment()
    found = home.runtime.run(home.pipeline.correspondent(Address.parse(sender)))
    assert [one.found.domain for one in found.chosen] == ["partner.example"] and found.chosen[0].found.capabilities is None


def signed_by_the_gateway(sender: str) -> bytes:
    """Mail of somebody at partner.example, which mallory at their gateway has signed with its key."""
    key = SoftwareKey("gateway", PARTNER._key.private_bytes(*_PKCS8), certificate=PARTNER.certificate, assigned=(sender,))
    other = MemoryGateway(MemoryKeys(key), built_in=[RulesPlugin(RuleSet([compile_rule("all", sign="required")]))])
    assert other.submit(f"From: {sender}\nTo: alice@example.org\n\npay\n", sender=sender, who=values.identity("x", sender)).code == 250
    return other.ready[0]


def _pkcs8():
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Encoding.DER, PrivateFormat.PKCS8, NoEncryption()


_PKCS8 = _pkcs8()


@pytest.mark.parametrize("bound", ["@partner.example", "bob@partner.example"])
def test_attack_a_bound_certificate_signs_as_somebody_of_its_domain(home, bound):
    Bindings(home.database).bind("gateway", [bound])
    home.moment()
    home.arrive(signed_by_the_gateway("bob@partner.example"), sender="bob@partner.example")
    assert home.rows[-1].verdict == "policy" and b"smime=pass" not in home.ready[-1]
    assert [event for event in home.events if event.name == "certificate learnt"] == []


def test_explain_says_that_it_is_for_the_whole_domain(home):
    home.add(BOB, "bob")
    steps = plan_of(home, "bob@partner.example")
    told = next(step.text for step in steps if step.name == "certificate")
    assert "from database): used" in told and "from database for all of @partner.example): not used, another one comes first" in told
