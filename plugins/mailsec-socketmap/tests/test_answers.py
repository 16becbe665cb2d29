"""What is answered, from a gateway in memory: certificates as mail would be encrypted, users with their addresses, and what cannot be said."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mailsec.errors import ConfigurationError, Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import PEER
from mailsec.model.session import Identity, Origin
from mailsec.model.settings import ListenerSettings
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec_socketmap.netstrings import LookUp
from mailsec_socketmap.plugin import SocketmapPlugin
from mailsec_socketmap.policy import PolicyRequest
from mailsec_socketmap.settings import SocketmapSettings


class People:
    """alice may use her address; bob@example.org exists."""

    name, mechanisms = "people", frozenset({PEER})
    out: Exception | None = None

    @hookimpl
    def register_authenticators(self):
        return [self]

    @hookimpl
    def register_recipient_directories(self):
        return [self]

    async def authenticate(self, credentials, session):
        if self.out is not None:
            raise self.out
        return Identity("alice", ("alice@example.org",), PEER) if credentials.login == "alice" else None

    async def exists(self, address):
        return address.key == "bob@example.org" if address.domain_key == "example.org" else None


class World:
    def __init__(self, **settings) -> None:
        authority = Authority("CA")
        self.people = People()
        self.directory = MemoryDirectory.of(authority.issue("carol@partner.example"))
        plugins = {"socketmap": SocketmapSettings(**settings)}
        self.gateway = MemoryGateway(SocketmapPlugin(), self.people, self.directory, trust=MemoryTrust(authority.anchor), plugins=plugins)
        (self.socketmap, self.policy) = self.gateway.pipeline.services()

    def ask(self, question) -> str:
        return self.gateway.runtime.run(self.socketmap.open(None)[1].ask(question))

    def decide(self, **attributes: str) -> str:
        return self.ask(PolicyRequest(attributes))


@pytest.mark.parametrize(
    ("name", "key", "answer"),
    [
        ("certificate", "carol@partner.example", "OK smtp:[127.0.0.1]:25"),
        ("certificate", "CAROL@Partner.Example", "OK smtp:[127.0.0.1]:25"),
        ("certificate", "bob@example.org", "NOTFOUND "),
        ("certificate", "partner.example", "NOTFOUND "),
        ("certificate", "@partner.example", "NOTFOUND "),
        ("certificate", "", "NOTFOUND "),
        ("certificate", "\udcff@x", "NOTFOUND "),
        ("recipient", "bob@example.org", "OK local"),
        ("recipient", "nobody@example.org", "NOTFOUND "),
        ("recipient", "carol@partner.example", "NOTFOUND "),
        ("other", "x", "PERM there is no map 'other': certificate and recipient"),
    ],
)
def test_a_map_answers_from_what_the_gateway_knows(name, key, answer):
    world = World(certificate="smtp:[127.0.0.1]:25", recipient="local")
    assert world.ask(LookUp(name, key)) == answer


def test_a_directory_that_is_out_makes_postfix_come_back():
    world = World(require_certificate=["@partner.example"])
    world.directory.out = Unavailable("it is down")
    assert world.ask(LookUp("certificate", "dave@partner.example")).startswith("TEMP ")
    assert world.decide(recipient="dave@partner.example").startswith("DEFER_IF_PERMIT 4.")
    world.people.out = Unavailable("it is down")
    assert world.decide(sasl_username="alice", sender="alice@example.org").startswith("DEFER_IF_PERMIT 4.")


@pytest.mark.parametrize(
    ("login", "sender", "action"),
    [
        ("alice", "alice@example.org", "DUNNO"),
        ("alice", "ALICE@EXAMPLE.ORG", "DUNNO"),
        ("alice", "bob@example.org", "REJECT"),
        ("alice", "not an address", "REJECT"),
        ("mallory", "alice@example.org", "REJECT"),
        ("alice", "", "DUNNO"),
        ("", "bob@example.org", "DUNNO"),
    ],
)
def test_a_user_sends_with_their_own_addresses_only(login, sender, action):
    assert World().decide(sasl_username=login, sender=sender).partition(" ")[0] == action


@pytest.mark.parametrize(
    ("recipient", "action"),
    [("carol@partner.example", "DUNNO"), ("dave@partner.example", "REJECT"), ("dave@elsewhere.example", "DUNNO"), ("", "DUNNO")],
)
def test_recipients_who_must_have_a_certificate(recipient, action):
    assert World(require_certificate=["@partner.example"]).decide(recipient=recipient).partition(" ")[0] == action


@pytest.mark.parametrize(
    ("recipient", "action"),
    [
        ("dave..d@partner.example", "REJECT"),
        (".dave@partner.example", "REJECT"),
        ("dave@partner.example.", "REJECT"),
        ("dave d@Partner.Example", "REJECT"),
        ("dave@[partner", "REJECT"),
        ("dave..d@elsewhere.example", "DUNNO"),
        ("postmaster", "DUNNO"),
    ],
)
def test_attack_a_recipient_that_only_postfix_can_read_needs_a_certificate_too(recipient, action):
    assert World(require_certificate=["@partner.example"]).decide(recipient=recipient).partition(" ")[0] == action


@pytest.mark.parametrize("text", ["", "two\nlines", "x" * 501])
def test_an_answer_in_the_settings_is_one_line(text):
    with pytest.raises(ValidationError):
        SocketmapSettings(certificate=text)


@pytest.mark.parametrize(
    ("address", "peers", "allowed"),
    [
        ("127.0.0.1:10050", (), True),
        ("[::1]:10050", (), True),
        ("unix:/run/x", (), True),
        ("0.0.0.0:10050", ("192.0.2.7",), True),
        ("0.0.0.0:10050", (), False),
        ("[::]:10050", (), False),
    ],
)
def test_attack_strangers_do_not_ask_who_our_people_are(address, peers, allowed):
    listener = ListenerSettings("x", address, "service", Origin.INTERNET, service="socketmap", peers=peers)
    make = lambda: MemoryGateway(  # noqa: E731
        SocketmapPlugin(), listeners=(listener,), plugins={"socketmap": SocketmapSettings()}
    )
    if allowed:
        assert [service.name for service in make().pipeline.services()] == ["socketmap", "policy"]
    else:
        with pytest.raises(ConfigurationError, match="who our people are"):
            make()
