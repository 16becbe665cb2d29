"""The mailbox path: whose keys open what, what is shown of what cannot be opened or believed, and who may say whose mailbox it is."""

from __future__ import annotations

import base64
import os
from email import message_from_bytes, policy
from typing import Any

import pytest

from mailsec.builtin.mailbox import MailboxPlugin
from mailsec.builtin.rules import RulesPlugin
from mailsec.cms.encrypt import encrypt_content
from mailsec.errors import KeyUnavailable, MailsecError, Refused, Unavailable
from mailsec.gateway.mailbox import Copy
from mailsec.gateway.mailbox_login import addresses_of, place_of
from mailsec.gateway.top import top_of
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.limits import Limits
from mailsec.model.octets import Segments
from mailsec.model.session import Identity, Origin
from mailsec.model.settings import ListenerSettings, MailboxSettings, Upstream
from mailsec.model.verdict import Decision, SmimeWord
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import FakeRuntime

ALICE = Identity("alice", ("alice@example.org",), "UPSTREAM")
HEAD = b"From: carol@example.net\r\nTo: alice@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
SECRET = b"Content-Type: text/plain\r\n\r\nthe secret\r\n"
MAILBOX = ListenerSettings(
    "mailbox",
    "127.0.0.1:995",
    "pop3",
    Origin.MAILBOX,
    mailbox=MailboxSettings(Upstream("mail.example.org", domains=("example.org", "example.net")), allowed=(Upstream("pop.example.com"),)),
)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def alice(authority: Authority) -> SoftwareKey:
    return authority.issue("alice@example.org", kind="rsa-2048")


def encrypted(*keys: SoftwareKey, content: bytes = SECRET) -> bytes:
    certificates = [key.certificate for key in keys if key.certificate is not None]
    made = encrypt_content(Segments((content,)), certificates, backend=SoftwareBackend(), random=os.urandom, cipher="aes-256-gcm")
    lines = base64.encodebytes(run_now(made).join()).replace(b"\n", b"\r\n")
    label = b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return HEAD + label + lines


def gateway(authority: Authority, *keys: Any, plugins: Any = (), rules: Any = (), on_failure: str = "header", **more: Any) -> MemoryGateway:
    mailbox = MailboxSettings(MAILBOX.mailbox.upstream, allowed=MAILBOX.mailbox.allowed, on_failure=on_failure)
    listener = ListenerSettings("mailbox", "127.0.0.1:995", "pop3", Origin.MAILBOX, mailbox=mailbox)
    built_in = [RulesPlugin(RuleSet(rules)), MailboxPlugin()]
    return MemoryGateway(MemoryKeys(*keys), *plugins, built_in=built_in, trust=MemoryTrust(authority.anchor), listeners=(listener,), **more)


def text_of(copy: Copy) -> bytes:
    return copy.segments.join()


# -- whose keys -----------------------------------------------------------------------------------------------------------------------


def test_owner_reads_what_is_encrypted_for_them(authority, alice):
    copy = gateway(authority, alice).retrieve(encrypted(alice), who=ALICE)
    assert b"the secret" in text_of(copy) and copy.verdict.word is SmimeWord.NONE
    assert text_of(copy).startswith(b"Authentication-Results: gw.example.org; smime=none")
    assert b"Received:" not in text_of(copy), "reading is no hop"


@pytest.mark.parametrize(
    "who",
    [
        None,
        Identity("bob", ("bob@example.org",), "UPSTREAM"),
        Identity("all", ("@example.org",), "UPSTREAM"),
        Identity("all", ("*",), "UPSTREAM"),
        Identity("none", (), "UPSTREAM"),
    ],
    ids=["nobody knows", "somebody else", "a domain", "everybody", "no address"],
)
def test_nobody_else_does(authority, alice, who):
    message = encrypted(alice)
    copy = gateway(authority, alice).retrieve(message, who=who)
    assert b"the secret" not in text_of(copy) and text_of(copy).endswith(message)
    if who is None:
        assert copy.verdict.reasons[0].code == "no-mailbox-owner"


def test_key_that_is_away_shows_the_message_closed_and_it_opens_when_the_key_is_back(authority, alice):
    class Away(MemoryKeys):
        away = True

        async def keys_for(self, address, usage):
            if self.away:
                raise KeyUnavailable("the token is out", hint="put it back")
            return await super().keys_for(address, usage)

    store = Away(alice)
    gate = MemoryGateway(store, built_in=[MailboxPlugin()], trust=MemoryTrust(authority.anchor), listeners=(MAILBOX,))
    message = encrypted(alice)
    copy = gate.retrieve(message, who=ALICE)
    assert text_of(copy).endswith(message) and copy.verdict.reasons[0].code == "key-unavailable"
    store.away = False
    assert b"the secret" in text_of(gate.retrieve(message, who=ALICE))


# -- who says whose mailbox it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("login", "upstream", "address"),
    [
        ("alice", "mail.example.org:995", "alice@example.org"),
        ("alice@example.net", "mail.example.org:995", "alice@example.net"),
        ("Alice@EXAMPLE.org", "mail.example.org:995", "Alice@EXAMPLE.org"),
        ("alice@elsewhere.example", "mail.example.org:995", None),
        ("alice@sub.example.org", "mail.example.org:995", None),
        ("alice@example.org@elsewhere.example", "mail.example.org:995", None),
        ("alice@example.org", "pop.example.com:995", None),
        ("alice@example.org", "mail.example.org:110", None),
        ("alice@example.org", "evil.example:995", None),
        ("", "mail.example.org:995", None),
        ("alice smith", "mail.example.org:995", None),
        ("*@example.org", "mail.example.org:995", "*@example.org"),
        # names that a server may keep apart, and that are compared as one
        ('"alice"', "mail.example.org:995", None),
        ('"alice"@example.org', "mail.example.org:995", None),
        ("\N{KELVIN SIGN}ate", "mail.example.org:995", None),
        ("alice@exam\N{SOFT HYPHEN}ple.org", "mail.example.org:995", None),
        ("alice@example.org\N{ZERO WIDTH SPACE}", "mail.example.org:995", None),
        ("alice@example\N{IDEOGRAPHIC FULL STOP}org", "mail.example.org:995", None),
        ("alice@\N{FULLWIDTH LATIN SMALL LETTER E}xample.org", "mail.example.org:995", None),
        ("alice@example.org.", "mail.example.org:995", None),
        ("j\N{LATIN SMALL LETTER O WITH DIAERESIS}rg", "mail.example.org:995", "j\N{LATIN SMALL LETTER O WITH DIAERESIS}rg@example.org"),
    ],
)
def test_owner_of_a_login_at_an_upstream(authority, login, upstream, address):
    gate = gateway(authority)
    session = values.session(Origin.MAILBOX, upstream=upstream)
    owner = gate.runtime.run(gate.pipeline.owner(session, login))
    assert (None if owner is None else owner.addresses) == (None if address is None else (address,))


def test_an_identity_of_a_mailbox_is_one_on_mailboxes_only(authority):
    from mailsec.interfaces import Credentials

    gate = gateway(authority)
    session = values.session(Origin.SUBMISSION, upstream="mail.example.org:995", listener="mailbox")
    assert gate.runtime.run(gate.pipeline.authenticate(Credentials("UPSTREAM", "alice", b""), session)) is None


SETTINGS = MailboxSettings(
    Upstream("mail.example.org"),
    (
        Upstream("*", 0),
        Upstream("pop.example.com", 995, domains=("example.com",)),
        Upstream("127.0.0.1", 1110, False),
        Upstream(".example.net", 0),
    ),
    ("10.1.0.0/16",),
)


@pytest.mark.parametrize(
    ("name", "host", "port", "implicit", "login"),
    [
        ("alice", "mail.example.org", 995, True, "alice"),
        ("alice@example.org", "mail.example.org", 995, True, "alice@example.org"),
        ("a#pop.example.com", "pop.example.com", 995, True, "a"),
        ("a@b.example#POP.example.com.:995", "pop.example.com", 995, True, "a@b.example"),
        ("a#pop.example.com:110", "pop.example.com", 110, False, "a"),
        ("a#127.0.0.1:1110", "127.0.0.1", 1110, False, "a"),
        ("a#[2001:db8::1]:995", "2001:db8::1", 995, True, "a"),
        ("a#mx.example.net:110", "mx.example.net", 110, False, "a"),
    ],
)
def test_user_name_names_a_server(name, host, port, implicit, login):
    place = place_of(SETTINGS, name)
    assert (place.upstream.host, place.upstream.port, place.upstream.implicit_tls, place.login) == (host, port, implicit, login)


@pytest.mark.parametrize(
    "name",
    [
        "a#",
        "#pop.example.com",
        "a#pop.example.com:25",
        "a#x:99999",
        "a#b#pop.example.com",
        "a#x y",
        "a#x..y:995",
        "a#" + "y" * 64 + ".example",
        "a#xn--\u00df.example",
        "a#127.0.0.1:22",
        "a#[::1",
        "a#x/../y:995",
    ],
)
def test_user_name_that_names_no_server_we_may_ask(name):
    with pytest.raises(Refused) as caught:
        place_of(SETTINGS, name)
    assert caught.value.reply.code == 535


def test_without_servers_to_choose_from_the_separator_is_a_character():
    place = place_of(MailboxSettings(Upstream("mail.example.org")), "alice#evil.example:995")
    assert (str(place.upstream), place.login, place.named) == ("mail.example.org:995", "alice#evil.example:995", False)
    with pytest.raises(Refused):
        place_of(MailboxSettings(allowed=(Upstream("pop.example.com"),)), "alice")


def test_the_separator_is_the_administrators_choice():
    settings = MailboxSettings(allowed=(Upstream("pop.example.com"),), separator="%")
    place = place_of(settings, "alice%pop.example.com:995")
    assert (str(place.upstream), place.login, place.named) == ("pop.example.com:995", "alice", True)
    with pytest.raises(Refused):
        place_of(settings, "alice#pop.example.com:995")


def test_anybodys_server_is_nobodys_owner():
    """A pattern has no domains, whatever it is given: its server would say whose mailbox it is."""
    place = place_of(MailboxSettings(allowed=(Upstream("*", 0, domains=("example.org",)),)), "alice@example.org#evil.example")
    assert place.upstream.domains == ()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.9.9.9", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1", "64:ff9b::7f00:1"])
def test_name_that_leads_to_our_own_networks_is_not_asked(address):
    records = {("evil.example", "AAAA" if ":" in address else "A"): [address]}
    runtime = FakeRuntime(records=records)
    with pytest.raises(Unavailable):
        runtime.run(addresses_of(runtime, place_of(SETTINGS, "a#evil.example"), SETTINGS))


def test_listed_networks_and_addresses_are_asked_and_what_was_looked_at_is_connected_to():
    records = {("in.example", "A"): ["127.0.0.1", "10.1.2.3", "10.2.0.1", "198.41.0.4"], ("in.example", "AAAA"): ["2001:503:ba3e::2:30"]}
    runtime = FakeRuntime(records=records)
    found = runtime.run(addresses_of(runtime, place_of(SETTINGS, "a#127.0.0.1:1110"), SETTINGS))
    assert list(found) == ["127.0.0.1:1110"]
    found = runtime.run(addresses_of(runtime, place_of(SETTINGS, "a#in.example"), SETTINGS))
    assert list(found) == ["10.1.2.3:995", "198.41.0.4:995", "[2001:503:ba3e::2:30]:995"]


# -- what is shown ------------------------------------------------------------------------------------------------------------------


def test_header_only_or_a_notice_with_the_original_attached(authority, alice):
    message = encrypted(alice)
    closed = gateway(authority).retrieve(message, who=ALICE)
    assert text_of(closed).endswith(message) and not closed.enclosed
    notice = gateway(authority, on_failure="notice").retrieve(message, who=ALICE)
    assert notice.enclosed
    shown = message_from_bytes(text_of(notice), policy=policy.SMTP)
    text, attached = shown.iter_parts()
    assert "could not be opened" in text.get_content() and shown["subject"] == "x" and shown["from"] == "carol@example.net"
    assert attached.get_content_type() == "message/rfc822"
    assert message in text_of(notice), "octet for octet"
    assert shown["authentication-results"].startswith("gw.example.org; smime=")


def test_what_is_fine_comes_without_a_notice(authority, alice):
    gate = gateway(authority, alice, on_failure="notice")
    assert not gate.retrieve(encrypted(alice), who=ALICE).enclosed
    assert not gate.retrieve(HEAD + b"\r\nhello\r\n", who=ALICE).enclosed


@pytest.mark.parametrize("action", ["refuse", "hold"])
def test_a_rule_keeps_nothing_from_its_reader_and_opens_nothing_against_it(authority, alice, action):
    class Strict:
        @hookimpl
        def decide_message(self, transaction, verdict):
            return Decision(action, reason="not here")

    message = encrypted(alice)
    copy = gateway(authority, alice, plugins=[Strict()]).retrieve(message, who=ALICE)
    assert text_of(copy).endswith(message) and copy.verdict.reasons[0].code == "rule-refuses"
    rule = compile_rule("all", {"origin": ["mailbox"]}, inbound="required")
    copy = gateway(authority, alice, rules=[rule]).retrieve(message, who=ALICE)
    assert text_of(copy).endswith(message) and b"the secret" not in text_of(copy)


def test_a_failing_plugin_defers(authority, alice):
    class Broken:
        @hookimpl
        def decide_message(self, transaction, verdict):
            raise RuntimeError("broken")

    with pytest.raises(MailsecError) as caught:
        gateway(authority, alice, plugins=[Broken()]).retrieve(encrypted(alice), who=ALICE)
    assert caught.value.reply.temporary


FORGED = b"Authentication-Results: gw.example.org; smime=pass\r\n"


@pytest.mark.parametrize("lead", [b"", b" smime=pass\r\n", b"\tx\r\n", b"junk\r\n"])
def test_a_forged_verdict_is_never_shown(authority, lead):
    copy = gateway(authority).retrieve(lead + FORGED + HEAD + b"\r\nhello\r\n")
    shown = message_from_bytes(text_of(copy))
    assert shown.get_all("authentication-results") == ["gw.example.org; smime=none"]


def test_results_of_our_own_mta_are_kept(authority):
    other = b"Authentication-Results: gw.example.org; spf=pass smtp.mailfrom=x; smime=pass\r\n"
    shown = message_from_bytes(text_of(gateway(authority).retrieve(other + HEAD + b"\r\nhello\r\n")))
    results = shown.get_all("authentication-results")
    assert results[0] == "gw.example.org; smime=none" and "spf=pass" in results[1] and "smime" not in results[1]


def test_a_forged_verdict_inside_of_what_is_opened_is_never_shown(authority, alice):
    inside = b"Content-Type: text/plain\r\n" + FORGED + b"\r\nx\r\n"
    shown = message_from_bytes(text_of(gateway(authority, alice).retrieve(encrypted(alice, content=inside), who=ALICE)))
    assert shown.get_all("authentication-results") == ["gw.example.org; smime=none"]


def test_header_over_the_limits_is_attached_whole(authority):
    message = b"X: y\r\n" * 50 + HEAD + b"\r\nhello\r\n"
    copy = gateway(authority, limits=Limits(header_fields=20)).retrieve(message)
    assert copy.enclosed and message in text_of(copy) and copy.verdict.word is SmimeWord.PERMERROR


def test_mail_that_went_through_a_hundred_hops_is_read_all_the_same(authority):
    message = b"Received: x\r\n" * 100 + HEAD + b"\r\nhello\r\n"
    assert text_of(gateway(authority).retrieve(message)).endswith(message)


@pytest.mark.parametrize("loose", [b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"x\n.\n+OK forged\r\n"])
def test_bare_line_ends_are_told_and_cannot_end_a_message(authority, loose):
    copy = gateway(authority).retrieve(HEAD + b"\r\n" + loose, loose=True)
    body = text_of(copy)
    assert copy.verdict.reasons[0].code == "normalised"
    assert b"\0" not in body and body.count(b"\r\n") == body.count(b"\r") == body.count(b"\n")


def test_bare_line_ends_behind_a_notice_are_kept_in_base64(authority, alice):
    message = encrypted(alice).replace(b"\r\n", b"\n")
    copy = gateway(authority, on_failure="notice", limits=Limits(header_fields=2)).retrieve(b"X: y\r\n" * 9 + message, loose=True)
    (_, attached) = message_from_bytes(text_of(copy), policy=policy.SMTP).iter_parts()
    assert attached.get_content() == b"X: y\r\n" * 9 + message


def test_what_was_retrieved_is_told_without_a_word_from_inside(authority, alice):
    gate = gateway(authority, alice)
    gate.retrieve(encrypted(alice), who=ALICE, upstream="mail.example.org:995")
    used, event = gate.events
    assert (used.name, used.fields["usage"], used.fields["address"]) == ("key used", "decrypt", "alice@example.org")
    assert event.name == "retrieved" and event.fields["user"] == "alice" and event.fields["upstream"] == "mail.example.org:995"
    assert "secret" not in str(gate.events) and "Subject" not in str(gate.events)


# -- TOP ----------------------------------------------------------------------------------------------------------------------------


def test_top_has_the_verdict_and_lines_that_can_be_read(authority, alice):
    gate = gateway(authority, alice)
    plain = gate.retrieve(HEAD + b"\r\none\r\ntwo\r\nthree\r\n")
    assert top_of(plain, 2).join().endswith(b"\r\n\r\none\r\ntwo\r\n") and b"smime=none" in top_of(plain, 0).join()
    assert top_of(plain, 0).join().endswith(b"MIME-Version: 1.0\r\n\r\n")
    assert top_of(plain, 99).join() == text_of(plain)
    opened = gate.retrieve(encrypted(alice), who=ALICE)
    assert top_of(opened, 1).join().endswith(b"the secret\r\n")


def test_top_shows_no_line_of_cipher_text_that_is_known_by_its_file_name(authority, alice):
    label = b'Content-Type: application/octet-stream; name="smime.p7m"'
    message = encrypted(alice).replace(b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data", label)
    assert label in message and top_of(gateway(authority).retrieve(message), 50).join().endswith(b"\r\n\r\n")


def test_top_shows_no_line_of_cipher_text(authority, alice):
    for gate in (gateway(authority), gateway(authority, on_failure="notice")):
        copy = gate.retrieve(encrypted(alice), who=ALICE)
        assert top_of(copy, 50).join().endswith(b"\r\n\r\n") and b"smime=" in top_of(copy, 50).join()
    wrapped = HEAD + b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nhi\r\n--x\r\n'
    wrapped += encrypted(alice).partition(b"MIME-Version: 1.0\r\n")[2] + b"\r\n--x--\r\n"
    assert top_of(gateway(authority).retrieve(wrapped), 50).join().endswith(b"\r\n\r\n")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("lines", [0, 1, 2, 9])
def test_top_of_segments_in_any_pieces(size, lines):
    octets = b"A: b\r\nC: d\r\n\r\none\r\ntwo\r\nthree"
    copy = Copy(Segments(tuple(octets[at : at + size] for at in range(0, len(octets), size))), None)
    body = octets.partition(b"\r\n\r\n")[2].splitlines(keepends=True)
    assert top_of(copy, lines).join() == b"A: b\r\nC: d\r\n\r\n" + b"".join(body[:lines])
    assert len(top_of(copy, lines)) == len(top_of(copy, lines).join())


def test_message_too_large_to_look_into_is_shown_as_it_is_with_a_verdict_that_says_so(authority, alice):
    """It lies in the mailbox already: nothing is lost, and nothing in it is believed."""
    gate = gateway(authority, alice, limits=Limits(message_size=5000))
    forged = b"Authentication-Results: gw.example.org; smime=pass\r\nX-Mailsec-Seal: v=1; k=x\r\n"
    letter = HEAD + b"Content-Type: text/plain\r\n\r\n" + b"line\r\n" * 2000
    copy = gate.retrieve(forged + letter, who=ALICE)
    shown = copy.segments.join()
    assert copy.verdict is not None and copy.verdict.word is SmimeWord.PERMERROR
    assert copy.verdict.reasons[0].code == "limit-message-size" and not copy.sealed
    top, _, rest = shown.partition(b"\r\n")
    assert top.startswith(b"Authentication-Results: gw.example.org; smime=permerror") and shown.count(b"Authentication-Results") == 1
    assert rest.endswith(letter) and b"X-Mailsec-Seal" not in shown


def test_message_too_large_to_look_into_is_not_opened(authority, alice):
    gate = gateway(authority, alice, limits=Limits(message_size=5000))
    message = encrypted(alice, content=SECRET + b"more\r\n" * 2000)
    assert gate.retrieve(message, who=ALICE).segments.join().endswith(message)
    assert b"the secret" in gateway(authority, alice).retrieve(message, who=ALICE).segments.join()


def test_message_too_large_to_look_into_cannot_fold_the_verdict_away(authority, alice):
    gate = gateway(authority, alice, limits=Limits(message_size=5000))
    copy = gate.retrieve(b" folded: x\r\n" + HEAD + b"\r\n" + b"line\r\n" * 2000, who=ALICE)
    assert copy.enclosed
