"""Encryption in the outbound path, with real keys: who can read which copy, who learns of whom, and what happens where it cannot be done."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mailsec.asn1 import writer
from mailsec.builtin.rules import RulesPlugin
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.errors import Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import FoundCertificate
from mailsec.keys.files import pem
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.partner import PartnerSettings
from mailsec.model.queue import State
from mailsec.model.session import Origin
from mailsec.model.verdict import Reason
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryPartners, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import EPOCH
from mailsec.x509.certificate import load_certificate

AUTHORITY = Authority()
ALICE = AUTHORITY.issue("alice@example.org")
BOB, CAROL = AUTHORITY.issue("bob@example.net"), AUTHORITY.issue("carol@example.com", kind="rsa-2048")
DAVE = AUTHORITY.issue("dave@example.net")
SECRET = b"the secret itself"
LETTER = (
    "From: Alice <alice@example.org>\nTo: bob@example.net\nCc: carol@example.com\nSubject: hi\nMessage-ID: <1@x>\n\nthe secret itself\n"
)


def gateway(*plugins, directory=None, partners=None, trust=None, rules=None, **words) -> MemoryGateway:
    """alice's gateway, which knows bob, carol and dave; its one rule has `words` (default: signed and encrypted)."""
    words = words or {"sign": "required", "encrypt": "required"}
    limits = words.pop("limits", DEFAULT_LIMITS)
    if rules is None:
        rules = [compile_rule("all", **words)]
    return MemoryGateway(
        *plugins,
        MemoryKeys(ALICE),
        directory or MemoryDirectory.of(ALICE, BOB, CAROL, DAVE),
        built_in=[RulesPlugin(RuleSet(rules))],
        trust=trust or MemoryTrust(AUTHORITY.anchor),
        partners=partners,
        limits=limits,
    )


def copies(gate: MemoryGateway) -> dict[tuple[str, ...], bytes]:
    """What leaves, by its recipients."""
    return {
        tuple(str(one.address) for one in row.entry.envelope.recipients): row.octets
        for row in gate.spool.in_state(State.READY)
        if row.entry.envelope.reverse_path is not None
    }


def cms_of(octets: bytes) -> bytes:
    header, _, body = octets.partition(b"\r\n\r\n")
    assert b"application/pkcs7-mime" in header, header
    return base64.b64decode(body)


def for_whom(octets: bytes) -> set[int]:
    """The serial numbers of the certificates that a copy is encrypted for."""
    return {int(one.serial) for one in read_enveloped_data(cms_of(octets)).recipients}


def serial(key) -> int:
    return load_certificate(key.certificate).serial


@pytest.fixture
def opened(tmp_path):
    """opened(octets, key): what `openssl cms -decrypt` makes of it; b"" where it cannot."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is absent")

    def run(octets: bytes, key) -> bytes:
        private = key._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for name, data in (("message", octets), ("key", private), ("recip", pem(key.certificate, "CERTIFICATE"))):
            (tmp_path / name).write_bytes(data)
        command = [program, "cms", "-decrypt", "-in", "message", "-inkey", "key", "-recip", "recip"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False)
        return done.stdout if done.returncode == 0 else b""

    return run


# -- who can read which copy ------------------------------------------------------------------------------------------------------


def test_signed_then_encrypted_and_read_by_openssl(opened):
    gate = gateway()
    assert gate.submit(LETTER, "bob@example.net").code == 250
    (octets,) = copies(gate).values()
    assert SECRET not in octets and for_whom(octets) == {serial(BOB)}
    inside = opened(octets, BOB)
    assert SECRET in inside and b"multipart/signed" in inside
    assert opened(octets, CAROL) == b""


def test_whom_the_header_shows_share_a_copy_and_a_hidden_one_has_a_copy_of_its_own(opened):
    gate = gateway()
    assert gate.submit(LETTER, "bob@example.net", "carol@example.com", "dave@example.net").code == 250
    shared, hidden = copies(gate)[("bob@example.net", "carol@example.com")], copies(gate)[("dave@example.net",)]
    # Attack: a reader counts the RecipientInfos, and learns of somebody in Bcc.
    assert for_whom(shared) == {serial(BOB), serial(CAROL)} and for_whom(hidden) == {serial(DAVE)}
    for octets, readers in ((shared, (BOB, CAROL)), (hidden, (DAVE,))):
        for key in (BOB, CAROL, DAVE):
            assert (SECRET in opened(octets, key)) is (key in readers)
    assert b"dave" not in shared and b"dave" not in hidden.partition(b"From:")[2]


def test_the_log_says_what_was_done_and_nothing_of_what_is_inside():
    gate = gateway()
    gate.submit(LETTER, "bob@example.net")
    (event,) = [event for event in gate.events if event.name == "received"]
    assert event.fields["protection"] == "signed and encrypted" and "secret" not in repr(event) and "hi" not in event.fields.values()


def test_two_hidden_ones_learn_nothing_of_each_other():
    gate = gateway()
    gate.submit(LETTER.replace("Cc: carol@example.com\n", ""), "carol@example.com", "dave@example.net")
    assert [for_whom(octets) for octets in copies(gate).values()] == [{serial(CAROL)}, {serial(DAVE)}]


def test_attack_a_recipient_in_a_display_name_or_a_comment_is_not_shown_by_the_header():
    gate = gateway()
    letter = LETTER.replace("To: bob@example.net", 'To: "dave@example.net" <bob@example.net> (dave@example.net)')
    gate.submit(letter, "bob@example.net", "dave@example.net")
    assert set(copies(gate)) == {("bob@example.net",), ("dave@example.net",)}


def test_bcc_field_is_gone_from_every_copy():
    gate = gateway()
    gate.submit("Bcc: dave@example.net\n" + LETTER, "bob@example.net", "dave@example.net")
    assert set(copies(gate)) == {("bob@example.net",), ("dave@example.net",)}
    assert b"dave" not in copies(gate)[("bob@example.net",)]


@pytest.mark.parametrize("by", ["rule", "partner"])
def test_encrypted_to_the_sender_too(opened, by):
    agreed = MemoryPartners(**{"bob@example.net": PartnerSettings(encrypt_to_sender="yes")})
    extra = {"encrypt_to_sender": "yes"} if by == "rule" else {}
    gate = gateway(encrypt="required", partners=agreed if by == "partner" else None, **extra)
    gate.submit(LETTER, "bob@example.net")
    (octets,) = copies(gate).values()
    assert for_whom(octets) == {serial(BOB), serial(ALICE)} and SECRET in opened(octets, ALICE)


def test_mail_to_ourselves_is_one_copy_for_one_certificate():
    gate = gateway(encrypt="required", encrypt_to_sender="yes")
    gate.submit(LETTER.replace("bob@example.net", "alice@example.org"), "alice@example.org")
    (octets,) = copies(gate).values()
    assert for_whom(octets) == {serial(ALICE)}


def test_a_holder_of_two_kinds_of_keys_can_read_with_either():
    other = AUTHORITY.issue("bob@example.net", kind="rsa-2048")
    older = AUTHORITY.issue("bob@example.net", at=AUTHORITY.at - timedelta(days=10))
    gate = gateway(directory=MemoryDirectory.of(BOB, other, older))
    gate.submit(LETTER, "bob@example.net")
    assert for_whom(*copies(gate).values()) == {serial(BOB), serial(other)}


def test_capabilities_decide_the_cipher():
    gcm = b"\x30\x0d\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2e"
    for capabilities, cipher in ((gcm, "aes-256-gcm"), (None, "aes-256-cbc")):
        gate = gateway(directory=MemoryDirectory(FoundCertificate(BOB.certificate, "memory", capabilities=capabilities)))
        gate.submit(LETTER, "bob@example.net")
        assert read_enveloped_data(cms_of(*copies(gate).values())).algorithm == cipher


# -- what the message is already ---------------------------------------------------------------------------------------------------


def test_mail_that_is_signed_is_encrypted_and_not_signed_again(opened):
    signer = gateway(sign="required")
    signer.submit(LETTER, "bob@example.net")
    (signed,) = copies(signer).values()
    gate = gateway()
    gate.submit(signed, "bob@example.net")
    inside = opened(*copies(gate).values(), BOB)
    assert inside.count(b"multipart/signed") == 1 and SECRET in inside


def test_mail_that_is_encrypted_is_passed_as_it_is():
    first, gate = gateway(encrypt="required"), gateway(encrypt="required", sign="if-possible")
    first.submit(LETTER, "bob@example.net")
    (octets,) = copies(first).values()
    gate.submit(octets, "bob@example.net")
    assert copies(gate)[("bob@example.net",)].endswith(octets)


@pytest.mark.parametrize(("cipher", "passed"), [("-aes-256-cbc", True), ("-aes-128-gcm", True), ("-des3", False)])
def test_what_openssl_encrypted_is_passed_unless_its_cipher_is_of_the_past(tmp_path, cipher, passed, need):
    """Its encoding is BER of indefinite length."""
    (tmp_path / "letter").write_bytes(b"Content-Type: text/plain\r\n\r\n" + SECRET + b"\r\n")
    (tmp_path / "recip").write_bytes(pem(BOB.certificate, "CERTIFICATE"))
    command = [need("openssl"), "cms", "-encrypt", "-stream", "-binary", cipher, "-in", "letter", "-recip", "recip"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=True).stdout
    octets = b"From: alice@example.org\r\nTo: bob@example.net\r\n" + made.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    gate = gateway(encrypt="required", sign="if-possible")
    assert gate.submit(octets, "bob@example.net").code == 250
    (sent,) = copies(gate).values()
    assert sent.endswith(octets) is passed and for_whom(sent) == {serial(BOB)}


ENCRYPTED_ELSEWHERE = gateway(encrypt="required")
ENCRYPTED_ELSEWHERE.submit(LETTER, "bob@example.net")
SEALED = next(iter(copies(ENCRYPTED_ELSEWHERE).values()))
HEADER, _, BODY = SEALED.partition(b"\r\n\r\n")
MIME = re.search(rb"Content-Type: application/pkcs7-mime.*\Z", HEADER, re.DOTALL)[0]
OUTER = b"From: alice@example.org\r\nTo: bob@example.net\r\n"
ENTITY = MIME + b"\r\n\r\n" + BODY


def mixed(*parts: bytes, preamble: bytes = b"", epilogue: bytes = b"", kind: bytes = b"multipart/mixed") -> bytes:
    inside = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return OUTER + b"Content-Type: " + kind + b'; boundary="b"\r\n\r\n' + preamble + inside + b"--b--\r\n" + epilogue


def sealed_for_nobody(content: bytes) -> bytes:
    cipher = writer.sequence(writer.oid("2.16.840.1.101.3.4.1.42"), writer.octet_string(bytes(16)))
    inner = writer.sequence(writer.oid("1.2.840.113549.1.7.1"), cipher, writer.implicit(0, writer.octet_string(content)))
    enveloped = writer.sequence(writer.integer(0), writer.set_of(), inner)
    return writer.sequence(writer.oid("1.2.840.113549.1.7.3"), writer.explicit(0, enveloped))


@pytest.mark.parametrize(
    "octets",
    {
        "only labelled": OUTER + b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\n" + SECRET + b"\r\n",
        "only named": OUTER + b'Content-Type: application/octet-stream; name="smime.p7m"\r\n\r\n' + SECRET + b"\r\n",
        "signed data under the label": OUTER + MIME + b"\r\n\r\nMIIB" + base64.b64encode(SECRET) + b"\r\n",
        "with a readable sibling": mixed(ENTITY, b"Content-Type: text/plain\r\n\r\n" + SECRET),
        "behind a readable sibling": mixed(b"Content-Type: text/plain\r\n\r\n" + SECRET, ENTITY),
        "with words before the part": mixed(ENTITY, preamble=SECRET + b"\r\n"),
        "with words behind the part": mixed(ENTITY, epilogue=SECRET + b"\r\n"),
        "with words behind the base64": OUTER + ENTITY + b"\r\n=====\r\n" + SECRET + b"\r\n",
        "with octets behind the CMS object": OUTER
        + MIME
        + b"\r\n\r\n"
        + base64.encodebytes(cms_of(SEALED) + SECRET).replace(b"\n", b"\r\n"),
        "with text as what was encrypted, for nobody": OUTER
        + MIME
        + b"\r\n\r\n"
        + base64.encodebytes(sealed_for_nobody(SECRET.ljust(32))).replace(b"\n", b"\r\n"),
        "with two labels": OUTER + b"Content-Type: text/plain\r\n" + ENTITY,
        "in a multipart/signed without a signature": mixed(
            ENTITY,
            b"Content-Type: application/pkcs7-signature\r\n\r\n" + SECRET,
            kind=b"multipart/signed; protocol=application/pkcs7-signature",
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_attack_mail_that_looks_encrypted_is_encrypted(octets, opened):
    gate = gateway(encrypt="required")
    assert gate.submit(octets[1], "bob@example.net").code == 250
    (sent,) = copies(gate).values()
    assert not sent.endswith(octets[1].partition(b"\r\n\r\n")[2]) and SECRET not in sent and base64.b64encode(SECRET)[:20] not in sent
    assert for_whom(sent) == {serial(BOB)} and opened(sent, BOB)


@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_encrypted_mail_with_a_signature_around_it_is_encrypted_already(form):
    signer = gateway(sign="required", form=form)
    signer.submit(OUTER + ENTITY, "bob@example.net")
    (signed,) = copies(signer).values()
    gate = gateway()
    gate.submit(signed, "bob@example.net")
    assert copies(gate)[("bob@example.net",)].endswith(signed)
    # Attack: the same with words between the parts.
    if form == "detached":
        boundary = re.search(rb'boundary="?([^";\r]+)', signed)[1]
        spoilt = signed.replace(b"\r\n--" + boundary, b"\r\n" + SECRET + b"\r\n--" + boundary, 1)
        gate = gateway()
        gate.submit(spoilt, "bob@example.net")
        assert SECRET not in b"".join(copies(gate).values())


# -- what cannot be done -----------------------------------------------------------------------------------------------------------


NOBODY = "erin@example.net"


def test_one_of_ten_lacks_a_certificate_and_that_is_hers_alone():
    people = [AUTHORITY.issue(f"p{number}@example.net") for number in range(9)]
    gate = gateway(directory=MemoryDirectory.of(*people))
    assert gate.submit(LETTER, *(f"p{number}@example.net" for number in range(9)), NOBODY).code == 250
    assert len(copies(gate)) == 9 and all(SECRET not in row.octets for row in gate.spool.rows)
    (report,) = [row for row in gate.spool.rows if row.entry.envelope.reverse_path is None]
    assert b"no certificate of erin@example.net is known" in report.octets.replace(b"\r\n        ", b" ")


@pytest.mark.parametrize(("failure", "code", "state"), [("refuse", 550, []), ("hold", 250, [State.HELD])])
def test_nobody_has_a_certificate(failure, code, state):
    gate = gateway(encrypt="required", failure=failure)
    reply = gate.submit(LETTER, NOBODY)
    assert reply.code == code and [row.state for row in gate.rows] == state
    assert code == 250 or (reply.enhanced == "5.7.1" and NOBODY in reply.text)


def test_if_possible_is_signed_only_where_there_is_no_certificate():
    gate = gateway(sign="required", encrypt="if-possible")
    assert gate.submit(LETTER, "bob@example.net", NOBODY).code == 250
    assert for_whom(copies(gate)[("bob@example.net",)]) == {serial(BOB)}
    plain = copies(gate)[(NOBODY,)]
    assert b"multipart/signed" in plain and SECRET in plain


WRONG = {
    "expired": (lambda: AUTHORITY.issue("bob@example.net", at=EPOCH - timedelta(days=400), days=100), {}),
    "not yet valid": (lambda: AUTHORITY.issue("bob@example.net", at=EPOCH + timedelta(days=2)), {}),
    "of another authority": (lambda: Authority("Stranger").issue("bob@example.net"), {}),
    "for signatures only": (lambda: AUTHORITY.issue("bob@example.net", usage="sign"), {}),
    "of somebody else": (lambda: AUTHORITY.issue("mallory@example.net"), {"bound": False}),
    "pending": (lambda: BOB, {"against": Reason("recipient-pending", "policy", "it waits", "accept it")}),
}


class Gives(MemoryDirectory):
    """Gives what it has for every address: a directory that is wrong, or lies."""

    async def certificates(self, address):
        return self.found


@pytest.mark.parametrize("case", WRONG)
def test_attack_a_certificate_that_must_not_be_used(case):
    make, changes = WRONG[case]
    directory = Gives(FoundCertificate(make().certificate, "directory", **changes))
    assert gateway(directory=directory).submit(LETTER, "bob@example.net").code == 550
    gate = gateway(encrypt="if-possible", directory=directory)
    gate.submit(LETTER, "bob@example.net")
    assert SECRET in next(iter(copies(gate).values()))


def test_what_a_directory_vouches_for_needs_no_authority_and_no_name():
    stranger = Authority("Stranger").issue("gateway@example.net")
    gate = gateway(directory=Gives(FoundCertificate(stranger.certificate, "dane", trusted_binding=True)))
    gate.submit(LETTER, "bob@example.net")
    assert for_whom(*copies(gate).values()) == {serial(stranger)}


def test_a_certificate_that_a_person_bound_to_an_address_needs_an_authority_all_the_same():
    for authority, code in ((AUTHORITY, 250), (Authority("Stranger"), 550)):
        found = FoundCertificate(authority.issue("gateway@example.net").certificate, "database", bound=True)
        assert gateway(directory=Gives(found)).submit(LETTER, "bob@example.net").code == code


def test_where_one_is_pinned_no_other_takes_its_place():
    pinned = AUTHORITY.issue("bob@example.net", at=EPOCH - timedelta(days=400), days=100)
    found = [FoundCertificate(BOB.certificate, "database"), FoundCertificate(pinned.certificate, "database", preferred=True)]
    assert gateway(directory=MemoryDirectory(*found)).submit(LETTER, "bob@example.net").code == 550


def test_short_keys_and_the_profile():
    gate = gateway(encrypt="required", profile="bsi-tr-02102")
    reply = gate.submit(LETTER, "carol@example.com")
    assert reply.code == 550 and "profile bsi-tr-02102" in reply.text
    assert gate.submit(LETTER, "bob@example.net").code == 250


@pytest.mark.parametrize("word", ["required", "if-possible"])
def test_a_directory_that_is_out_is_waited_for_and_nothing_leaves(word):
    directory = MemoryDirectory.of(BOB)
    directory.out = Unavailable("the directory is away")
    gate = gateway(encrypt=word, directory=directory)
    assert gate.submit(LETTER, "bob@example.net").code == 250
    assert [(row.state, row.need, row.secret) for row in gate.rows] == [(State.RAW, "directory", True)]
    directory.out = None
    gate.resume(gate.rows[0].id)
    assert for_whom(*copies(gate).values()) == {serial(BOB)}


def test_who_waits_for_a_directory_does_not_keep_the_others_waiting():
    elsewhere = MemoryDirectory.of(DAVE, name="ldap", local=False)
    elsewhere.out = Unavailable("away")
    gate = gateway(elsewhere, directory=MemoryDirectory.of(BOB), encrypt="required")
    assert gate.submit(LETTER, "bob@example.net", "dave@example.net").code == 250
    assert set(copies(gate)) == {("bob@example.net",)}
    (waiting,) = [row for row in gate.rows if row.state is State.RAW]
    assert waiting.need == "directory" and [str(one.address) for one in waiting.envelope.recipients] == ["dave@example.net"]
    elsewhere.out = None

    async def later() -> None:
        await gate.runtime.sleep(60)

    gate.runtime.run(later())
    gate.resume(waiting.id)
    assert set(copies(gate)) == {("bob@example.net",), ("dave@example.net",)}


def test_a_directory_on_this_machine_comes_before_others_and_one_that_is_asked_first_before_the_next():
    other = AUTHORITY.issue("bob@example.net")
    first, second = MemoryDirectory.of(other, name="first", local=False), MemoryDirectory.of(DAVE, name="second", local=False)
    gate = gateway(first, second, directory=MemoryDirectory.of(BOB), encrypt="required")
    gate.submit(LETTER, "bob@example.net")
    assert for_whom(*copies(gate).values()) == {serial(BOB)} and first.asked == second.asked == []
    gate = gateway(first, second, directory=MemoryDirectory(), encrypt="required")
    gate.submit(LETTER, "bob@example.net")
    assert for_whom(*copies(gate).values()) == {serial(other)} and second.asked == []


def test_a_directory_elsewhere_is_asked_only_where_somebody_is_to_be_encrypted_for():
    elsewhere = MemoryDirectory.of(DAVE, name="ldap", local=False)
    rules = [compile_rule("dave", {"recipient": "dave@example.net"}, encrypt="required")]
    gate = gateway(elsewhere, directory=MemoryDirectory.of(BOB), rules=rules)
    gate.submit(LETTER, "bob@example.net")
    assert elsewhere.asked == []
    for _ in range(3):
        gate.submit(LETTER, "dave@example.net")
    # Asked once, and its answer is kept for a while.
    assert [str(one) for one in elsewhere.asked] == ["dave@example.net"]
    assert for_whom(copies(gate)[("dave@example.net",)]) == {serial(DAVE)}


def test_a_directory_that_does_not_answer_is_not_asked_for_every_message():
    elsewhere = MemoryDirectory.of(DAVE, name="ldap", local=False)
    elsewhere.out = ValueError("a bug")
    gate = gateway(elsewhere, encrypt="required")
    for number in range(5):
        gate.submit(LETTER, f"x{number}@example.net")
    assert len(elsewhere.asked) == 1 and {row.need for row in gate.rows} == {"directory"}


def test_copies_beyond_the_limit_are_refused_whole():
    limits = values_of(max_expansion=3, expansion_octets=15_000)
    people = [AUTHORITY.issue(f"p{number}@example.net") for number in range(20)]
    gate = gateway(directory=MemoryDirectory.of(*people), encrypt="required", limits=limits)
    reply = gate.submit(LETTER, *(f"p{number}@example.net" for number in range(20)))
    assert (reply.code, reply.enhanced) == (552, "5.3.4") and gate.rows == []
    assert gate.submit(LETTER, *(f"p{number}@example.net" for number in range(3))).code == 250


def values_of(**changes):
    from dataclasses import replace

    return replace(DEFAULT_LIMITS, **changes)


# -- nobody weakens it -------------------------------------------------------------------------------------------------------------


def bring(**hooks) -> object:
    return type("Plugin", (), {name: hookimpl(function) for name, function in hooks.items()})()


def test_attack_a_plugin_drops_the_encryption():
    from dataclasses import replace

    gate = gateway(bring(plan_protection=lambda self, plan: replace(plan, encrypt=False, recipients=())))
    assert gate.submit(LETTER, "bob@example.net").code == 451 and gate.rows == []


def test_attack_a_plugin_encrypts_for_somebody_else():
    from dataclasses import replace

    mallory = load_certificate(AUTHORITY.issue("mallory@example.net").certificate).fingerprint.hex()
    gate = gateway(bring(plan_protection=lambda self, plan: replace(plan, recipients=(*plan.recipients, mallory))))
    assert gate.submit(LETTER, "bob@example.net").code == 451 and gate.rows == []


@pytest.mark.parametrize("change", [{"profile": "compatible"}, {"header_protection": "no"}, {"wrap": "sign"}])
def test_attack_a_plugin_weakens_how_it_is_encrypted(change):
    from dataclasses import replace

    weaken = bring(plan_protection=lambda self, plan: replace(plan, **change))
    gate = gateway(weaken, sign="required", encrypt="required", wrap="triple", header_protection="shy", profile="pss")
    assert gate.submit(LETTER, "bob@example.net").code == 451 and gate.rows == []


def test_a_plugin_that_only_says_encrypt_gets_the_recipients_certificates():
    from dataclasses import replace

    gate = gateway(bring(plan_protection=lambda self, plan: replace(plan, encrypt=True)), sign="required")
    gate.submit(LETTER, "bob@example.net")
    assert for_whom(*copies(gate).values()) == {serial(BOB)}
    assert gate.submit(LETTER, NOBODY).code == 550


@pytest.mark.parametrize("field", [("Content-Type", "text/plain"), ("Content-Transfer-Encoding", "7bit")])
def test_attack_a_field_of_a_plugin_relabels_the_copy(field):
    gate = gateway(bring(annotate_message=lambda self: [field]))
    assert gate.submit(LETTER, "bob@example.net").code == 250
    assert [row.state for row in gate.rows] == [State.HELD] and "does not leave" in gate.rows[0].reason


def test_attack_an_engine_that_forgets_to_encrypt():
    gate = gateway()
    engine = gate.pipeline._tools.engine
    real = engine.protect

    async def forgets(message, plan, signers, at, recipients=()):
        from dataclasses import replace

        return await real(message, replace(plan, encrypt=False), signers, at)

    engine.protect = forgets
    gate.submit(LETTER, "bob@example.net")
    assert [row.state for row in gate.rows] == [State.HELD] and gate.rows[0].secret


# -- how -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_triple_wrap_leaves_signed_around_what_is_encrypted(form):
    gate = gateway(sign="required", encrypt="required", wrap="triple", form=form)
    gate.submit(LETTER, "bob@example.net")
    assert [row.state for row in gate.rows] == [State.READY]
    (octets,) = copies(gate).values()
    assert SECRET not in octets and (b"multipart/signed" in octets) is (form == "detached")


def test_fields_that_are_hidden_outside_stand_in_no_report():
    gate = gateway(encrypt="required", header_protection="baseline")
    letter = LETTER.replace("Subject: hi", "Subject: the takeover")
    gate.submit(letter, "bob@example.net", NOBODY)
    assert all(b"takeover" not in row.octets for row in gate.spool.rows)
    assert all(b"takeover" not in row.header for row in gate.rows) and any(b"Message-ID: <1@x>" in row.header for row in gate.rows)


REPORT = (
    "From: alice@example.org\nTo: bob@example.net\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n"
    "--b\n\nread\n--b--\n"
)
DELIVERY = REPORT.replace("disposition-notification", "delivery-status").replace(
    "read\n", "delivered\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.org\n"
)
INVITATION = "From: alice@example.org\nTo: bob@example.net\nContent-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR\n"
ALTERNATIVE = (
    "From: alice@example.org\nTo: bob@example.net\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\ncome\n"
    "--b\nContent-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR\n--b--\n"
)
ATTACHED = ALTERNATIVE.replace("alternative", "mixed").replace("REQUEST\n", "REQUEST\nContent-Disposition: attachment\n")


@pytest.mark.parametrize("text", [REPORT, DELIVERY, INVITATION, ALTERNATIVE])
def test_reports_and_invitations_stay_as_they_are_unless_encryption_is_required(text):
    gate = gateway(sign="required", encrypt="if-possible")
    gate.submit(text, "bob@example.net")
    (octets,) = copies(gate).values()
    assert b"pkcs7" not in octets and text.replace("\n", "\r\n").encode() in octets
    gate = gateway(sign="required", encrypt="required")
    gate.submit(text, "bob@example.net")
    assert for_whom(*copies(gate).values()) == {serial(BOB)}


def test_a_rule_that_names_the_kind_signs_invitations_and_an_attached_calendar_is_none():
    rules = [compile_rule("calendars", {"kind": "calendar"}, sign="required"), compile_rule("all", sign="never")]
    for text, signed in ((INVITATION, True), (REPORT, False), (ATTACHED, False)):
        gate = gateway(rules=rules)
        gate.submit(text, "bob@example.net")
        assert (b"multipart/signed" in next(iter(copies(gate).values()))) is signed


# -- rules and partners ---------------------------------------------------------------------------------------------------------------


def plan_of(gate: MemoryGateway, *recipients: str):
    transaction = gate.pipeline.begin(
        values.session(Origin.SUBMISSION), values.envelope("alice@example.org", *recipients), values.message(LETTER).octets
    )
    return gate.runtime.run(gate.pipeline.explain(transaction)).steps


@pytest.mark.parametrize(
    ("rule", "agreed", "word", "level"),
    [
        ("", "", "never", "default"),
        ("", "required", "required", "partner @example.net"),
        ("", "if-possible", "if-possible", "partner @example.net"),
        ("if-possible", "required", "required", "partner @example.net"),
        ("if-possible", "never", "if-possible", 'rule "all"'),
        ("never", "required", "never", 'rule "all"'),
        ("required", "never", "required", 'rule "all"'),
        ("required", "", "required", 'rule "all"'),
    ],
)
def test_rules_decide_first_and_a_partner_what_they_leave_open(rule, agreed, word, level):
    settings = PartnerSettings(
        encrypt=agreed, profile="pss", levels={"encrypt": "@example.net", "profile": "@example.net"} if agreed else {}
    )
    gate = gateway(partners=MemoryPartners(**{"bob@example.net": settings}), **({"encrypt": rule} if rule else {"sign": "never"}))
    told = next(step.text for step in plan_of(gate, "bob@example.net") if step.name == "settings")
    assert f"encrypt {word} ({level})" in told
    if word != "never":
        assert "profile pss (partner" in told
    gate.submit(LETTER, "bob@example.net")
    assert (b"enveloped" in next(iter(copies(gate).values()))) is (word != "never")


@pytest.mark.parametrize(("agreed", "outside"), [("baseline", b"Subject: [...]"), ("sign", b"Subject: hi")])
def test_header_protection_that_a_partner_agreed_to_hides_what_it_says_and_for_that_partner_only(opened, agreed, outside):
    settings = PartnerSettings(header_protection=agreed, levels={"header-protection": "@example.net"})
    gate = gateway(partners=MemoryPartners(**{"bob@example.net": settings}), sign="required", encrypt="required")
    gate.submit(LETTER, "bob@example.net", "carol@example.com")
    written = copies(gate)
    assert outside in written[("bob@example.net",)] and b"Subject: hi" in written[("carol@example.com",)]
    for who, holder in (("bob@example.net", BOB), ("carol@example.com", CAROL)):
        inside = opened(written[(who,)], holder)
        assert (b"hp=" in inside, b"Subject: hi" in inside) == ((True, True) if holder is BOB else (False, False)), inside[:600]
    told = next(step.text for step in plan_of(gate, "bob@example.net") if step.name == "settings")
    assert f"header protection {agreed} (partner @example.net)" in told


def test_a_partner_asks_to_hold_what_cannot_be_done():
    agreed = MemoryPartners(**{NOBODY: PartnerSettings(encrypt="required", hold="yes")})
    gate = gateway(partners=agreed, sign="never")
    gate.submit(LETTER, NOBODY)
    assert [row.state for row in gate.rows] == [State.HELD]


def test_explain_says_which_certificate_is_used_and_why_the_others_are_not():
    old = AUTHORITY.issue("bob@example.net", at=EPOCH - timedelta(days=400), days=100)
    steps = plan_of(gateway(directory=MemoryDirectory.of(BOB, old)), "bob@example.net")
    told = next(step.text for step in steps if step.name == "certificate")
    assert ": used" in told and "not used, it ended" in told
    assert next(step.text for step in steps if step.name == "plan") == "sign (detached) with alice@example.org, encrypt to 1 certificate"
