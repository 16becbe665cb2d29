"""Signed mail teaches its author's certificate, and the next mail to them is encrypted; what must not teach anything does not."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from mailsec.app.database_plugin import DatabasePlugin
from mailsec.builtin.rules import RulesPlugin
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.errors import StoreError
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Evidence
from mailsec.keys.software import SoftwareKey
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_parts
from mailsec.mime.transfer import decode
from mailsec.model.address import Address
from mailsec.model.octets import BytesOctets
from mailsec.model.queue import State
from mailsec.model.settings import RevocationSettings
from mailsec.model.trust import IssuedCertificate, TrustFlags
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.store.certdb import CertDb
from mailsec.store.learnt import Learnt
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec.x509.certificate import load_certificate
from mailsec.x509.issue import issue_mail, make_key, public_key_of
from mailsec.x509.issue_crl import issue_crl
from tests.gateway.chains import authority_called

AUTHORITY = Authority()
CAROL = AUTHORITY.issue("carol@example.net")
LETTER = "From: Carol <carol@example.net>\nTo: alice@example.org\nMessage-ID: <1@x>\n\nhello\n"
REPLY = "From: alice@example.org\nTo: carol@example.net\n\nthe secret itself\n"


def signed(key: SoftwareKey = CAROL, text: str = LETTER, **words) -> bytes:
    """carol's mail, as it leaves her own gateway."""
    rules = [compile_rule("all", sign="required", **words)]
    gate = MemoryGateway(MemoryKeys(key), built_in=[RulesPlugin(RuleSet(rules))], trust=MemoryTrust(AUTHORITY.anchor))
    sender = text.partition("From: ")[2].partition("\n")[0].strip("<>").rpartition("<")[2].rstrip(">")
    assert gate.submit(text, "alice@example.org", sender=sender, who=values.identity("carol", sender)).code == 250
    return gate.ready[0]


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    directory = tmp_path_factory.mktemp("empty")
    directory.chmod(0o700)
    with CertDb.create(str(directory / "x.db"), b"", at=EPOCH, cost=2) as database:
        database.add(AUTHORITY.certificate, "CA", trust=TrustFlags.parse(",C,"), domains=("*",), at=EPOCH)
    return directory / "x.db"


class Home(MemoryGateway):
    """alice's gateway, with a real certificate database."""

    def __init__(self, database: CertDb, *plugins: object, encrypt: str = "if-possible", **changes) -> None:
        runtime = FakeRuntime()
        self.database, self.known = database, DatabasePlugin(database, runtime)
        rules = RulesPlugin(RuleSet([compile_rule("all", encrypt=encrypt)]))
        super().__init__(
            self.known,
            *plugins,
            MemoryKeys(AUTHORITY.issue("alice@example.org")),
            built_in=[rules],
            trust=self.known,
            runtime=runtime,
            partners=self.known,
            learner=self.known,
            **changes,
        )

    def receives(self, octets: bytes, sender: str = "carol@example.net") -> None:
        assert self.arrive(octets, sender=sender).code == 250
        for row in [row for row in self.rows if row.state is State.RAW]:
            self.resume(row.id)
        self.settle()

    def settle(self, seconds: float = 5) -> None:
        async def moment() -> None:
            await self.runtime.sleep(seconds)

        self.runtime.run(moment())

    def lessons(self) -> list[str]:
        return [str(event.fields["state"]) for event in self.events if event.name == "certificate learnt"]

    def writes(self) -> bytes:
        """What alice's answer looks like."""
        assert self.submit(REPLY, "carol@example.net").code == 250
        return self.ready[-1]


@pytest.fixture
def home(empty, tmp_path):
    import shutil

    tmp_path.chmod(0o700)
    shutil.copy(empty, tmp_path / "x.db")
    with CertDb.open(str(tmp_path / "x.db"), password=b"") as database:
        yield Home(database)


def sealed(octets: bytes):
    message = index_message(BytesOctets(octets))
    part = read_parts(message)
    return read_enveloped_data(b"".join(decode(part.encoding, message.octets.blocks(part.body_start, part.end))))


def test_who_has_written_signed_is_written_to_encrypted_as_they_can_read_it(home):
    assert b"the secret" in home.writes()
    home.receives(signed())
    assert home.lessons() == ["used"]
    octets = home.writes()
    # Carol's program says that it reads AES-256-GCM.
    assert b"the secret" not in octets and sealed(octets).algorithm == "aes-256-gcm"
    assert [one.serial for one in sealed(octets).recipients] == [load_certificate(CAROL.certificate).serial]


def test_what_is_known_is_not_written_again(home):
    for _ in range(3):
        home.receives(signed())
    assert home.lessons() == ["used"] and Learnt(home.database).seen()[0].times == 1


WRONG = {
    "a stranger's authority": lambda: signed(Authority("Stranger").issue("carol@example.net")),
    "one word changed": lambda: signed().replace(b"\r\nhello\r\n", b"\r\nHello\r\n"),
    "another From": lambda: signed().replace(b"carol@example.net", b"dave@example.net", 1),
    "our own domain": lambda: signed(AUTHORITY.issue("bob@example.org"), LETTER.replace("carol@example.net", "bob@example.org")),
    "not signed": lambda: LETTER.replace("\n", "\r\n").encode(),
    "a key for signatures only": lambda: signed(AUTHORITY.issue("carol@example.net", usage="sign")),
}


@pytest.mark.parametrize("case", WRONG)
def test_attack_mail_that_must_not_teach_anything(home, case):
    home.receives(WRONG[case]())
    assert home.lessons() == [] and Learnt(home.database).seen() == []


def test_attack_a_second_key_does_not_take_the_place_of_the_first(home):
    home.receives(signed())
    home.receives(signed(AUTHORITY.issue("carol@example.net", at=EPOCH - timedelta(hours=1))))
    assert home.lessons() == ["used", "pending"]
    assert [one.serial for one in sealed(home.writes()).recipients] == [load_certificate(CAROL.certificate).serial]
    pending = Learnt(home.database).seen("pending")[0]
    Learnt(home.database).decide(load_certificate(pending.entry.der).fingerprint.hex(), "pin")
    home.settle()
    assert [one.serial for one in sealed(home.writes()).recipients] == [load_certificate(pending.entry.der).serial]


class Lists:
    """A source of revocation lists: `about_carol` of the certificate that is in use, and `others` of every other one."""

    name = "lists"
    local = True
    """It is asked again before its list ends."""

    def __init__(self) -> None:
        self.about_carol = self.others = revoking()

    @hookimpl
    def register_revocation_sources(self):
        return [self]

    async def evidence(self, request):
        octets = self.about_carol if request.certificate == CAROL.certificate else self.others
        return [Evidence("crl", octets, "lists", EPOCH)] if request.kind == "crl" else ()


def revoking(*keys: SoftwareKey, by: Authority = AUTHORITY, signed_with: Authority | None = None) -> bytes:
    """A list of `by`; `signed_with`: the forger's name for it is `by`'s."""
    register = [
        IssuedCertificate(by.certificate, load_certificate(key.certificate).serial, None, EPOCH + timedelta(days=800), EPOCH)
        for key in keys
    ]
    return issue_crl((signed_with or by).issuer, register, number=1 + len(keys), at=EPOCH - timedelta(hours=1))


RENEWED = AUTHORITY.issue("carol@example.net", at=EPOCH - timedelta(hours=1))


@pytest.fixture
def lists(home):
    """A home that asks whether certificates were revoked, and what it is told."""
    source = Lists()
    return Home(home.database, source, revocation=RevocationSettings()), source


def test_the_successor_of_a_revoked_certificate_is_encrypted_to_at_once(lists):
    home, source = lists
    home.receives(signed())
    assert home.lessons() == ["used"] and b"the secret" not in home.writes()
    source.about_carol = revoking(CAROL)
    home.settle(120)
    home.receives(signed(RENEWED))
    assert home.lessons() == ["used", "used"]
    assert [one.serial for one in sealed(home.writes()).recipients] == [load_certificate(RENEWED.certificate).serial]


def test_one_that_waits_is_looked_at_again_when_the_other_has_been_revoked(lists):
    home, source = lists
    home.receives(signed())
    home.receives(signed(RENEWED))
    source.about_carol = revoking(CAROL)
    home.settle(900)
    home.receives(signed(RENEWED))
    assert home.lessons() == ["used", "pending", "used"]


MALLORY = AUTHORITY.issue("mallory@example.net")
UNBELIEVED = {
    "forged: another key has signed it": lambda: revoking(CAROL, signed_with=Authority()),
    "the list of another authority": lambda: revoking(CAROL, by=Authority("Other CA")),
    "another address's is revoked": lambda: revoking(MALLORY),
    "junk: the status is unknown": lambda: b"junk",
}


@pytest.mark.parametrize("case", UNBELIEVED)
def test_attack_somebody_claims_that_the_certificate_in_use_was_revoked(lists, case):
    home, source = lists
    home.receives(signed(MALLORY, LETTER.replace("carol", "mallory").replace("Carol", "Mallory")), "mallory@example.net")
    home.receives(signed())
    assert home.lessons() == ["used", "used"]
    source.about_carol = UNBELIEVED[case]()
    home.settle(120)
    home.receives(signed(RENEWED))
    assert home.lessons() == ["used", "used", "pending"]


def test_a_blocked_certificate_is_neither_used_nor_trusted(home):
    home.receives(signed())
    Learnt(home.database).decide(load_certificate(CAROL.certificate).fingerprint.hex(), "block")
    home.settle()
    assert b"the secret" in home.writes()
    home.receives(signed())
    assert home.rows[-1].verdict == "policy"


def test_attack_a_certificate_of_somebody_else_in_the_bag(home):
    mallory = AUTHORITY.issue("mallory@example.net")
    key = SoftwareKey("carol", _pkcs8(CAROL), certificate=CAROL.certificate, chain=(mallory.certificate,), assigned=CAROL.assigned)
    home.receives(signed(key))
    assert [known.address for known in Learnt(home.database).seen()] == ["carol@example.net"]


@pytest.mark.parametrize("usage", ["both", "sign"])
def test_attack_another_authoritys_signature_beside_the_certificate_in_use_weakens_the_cipher(home, usage):
    home.receives(signed())
    other = Authority("Other CA")
    home.database.add(other.certificate, "Other", trust=TrustFlags.parse(",C,"), domains=("*",), at=EPOCH)
    forged = other.issue("carol@example.net", usage=usage)
    key = SoftwareKey("carol", _pkcs8(forged), certificate=forged.certificate, chain=(CAROL.certificate,), assigned=forged.assigned)
    home.receives(signed(key, profile="compatible"))
    assert home.rows[-1].verdict == "pass" and sealed(home.writes()).algorithm == "aes-256-gcm"


def test_a_second_certificate_for_encryption_is_learnt_from_the_bag(home):
    signing, reading = AUTHORITY.issue("carol@example.net", usage="sign"), AUTHORITY.issue("carol@example.net", usage="encrypt")
    key = SoftwareKey("carol", _pkcs8(signing), certificate=signing.certificate, chain=(reading.certificate,), assigned=signing.assigned)
    home.receives(signed(key))
    octets = sealed(home.writes())
    assert [one.serial for one in octets.recipients] == [load_certificate(reading.certificate).serial] and octets.algorithm == "aes-256-gcm"


def _pkcs8(key: SoftwareKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def test_a_database_that_is_out_costs_no_mail_and_is_asked_again(home, monkeypatch):
    def fails(*_args, **_more):
        raise StoreError("the database is away")

    monkeypatch.setattr(Learnt, "learn", fails)
    home.receives(signed())
    assert [row.verdict for row in home.rows] == ["pass"] and home.lessons() == []
    monkeypatch.undo()
    home.receives(signed())
    assert home.lessons() == ["used"]


def test_an_authority_that_came_along_is_kept_so_that_the_answer_finds_its_path(home):
    top = authority_called("Top CA", None, AUTHORITY.at)
    middle, own = authority_called("Middle CA", top, AUTHORITY.at), make_key("ec-p256")
    home.database.add(top.certificate, "Top", trust=TrustFlags.parse(",C,"), domains=("*",), at=EPOCH)
    public, carol = public_key_of(own), [Address.parse("carol@example.net")]
    der = issue_mail(middle, addresses=carol, public_key=public, at=AUTHORITY.at, random=os.urandom)
    handle = SoftwareKey("carol", own, certificate=der, chain=(middle.certificate,), assigned=("carol@example.net",))
    home.receives(signed(handle))
    assert home.lessons() == ["used"] and middle.certificate in home.database.authorities()
    assert b"the secret" not in home.writes()
