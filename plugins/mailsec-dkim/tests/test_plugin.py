"""The plugin in a gateway in memory: findings before anything is taken off, results, signatures over what really leaves."""

from __future__ import annotations

import base64
import tracemalloc

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat

from mailsec.errors import ConfigurationError, KeyUnavailable, Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.keys.software import SoftwareKey
from mailsec.model.octets import Segments
from mailsec.model.protection import ProtectionPlan
from mailsec.model.session import Origin
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import FakeRuntime
from mailsec_dkim.plugin import DkimPlugin
from mailsec_dkim.settings import DkimSettings

CA = Authority()
ALICE, BOB = CA.issue("alice@example.org"), CA.issue("bob@example.net")
RSA, ED = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
RECORDS = {
    "rsa._domainkey.example.org": b"p=" + base64.b64encode(RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    "ed._domainkey.example.org": b"k=ed25519; p=" + base64.b64encode(ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
}
LETTER = "From: alice@example.org\nTo: bob@example.net\nSubject: hi\nDate: Fri, 27 Nov 2026 12:00:00 +0000\nMessage-ID: <1@x>\n\nhello\n"


def der(key) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


class Policy:
    """Signed, and encrypted for those who can be."""

    def __init__(self, *, encrypt=False):
        self.encrypt = encrypt

    @hookimpl
    def plan_protection(self, candidates, plan):
        if self.encrypt and candidates.encryption_wait:
            return ProtectionPlan(wait=candidates.encryption_wait)
        recipients = candidates.certificates if self.encrypt else ()
        return ProtectionPlan(True, self.encrypt, candidates.signers[0], recipients=recipients) if candidates.signers else plan


class Findings:
    """Remembers what the checks have found."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def decide_message(self, findings):
        self.seen = list(findings)


def gateway(*plugins, table=None, built_in=(), start=True, extra_keys=(), runtime=None, **words):
    settings = DkimSettings.model_validate(table or {})
    plugin = DkimPlugin()
    runtime = runtime or FakeRuntime(records={(name, "TXT"): [text] for name, text in RECORDS.items()})
    keys = MemoryKeys(ALICE, SoftwareKey("dkim-rsa", der(RSA)), SoftwareKey("dkim-ed", der(ED)), *extra_keys)
    words.setdefault("trust", MemoryTrust(CA.anchor))
    made = MemoryGateway(
        plugin, *plugins, keys, MemoryDirectory.of(ALICE, BOB), built_in=built_in, runtime=runtime, plugins={"dkim": settings}, **words
    )
    if start:
        made.runtime.run(made.pipeline.startup())
    return made


SIGN = {
    "sign": [
        {"domain": "example.org", "selector": "rsa", "key": "dkim-rsa"},
        {"domain": "example.org", "selector": "ed", "key": "dkim-ed"},
    ]
}


def passes(octets: bytes) -> list[bool]:
    one = dkim.DKIM(octets)
    count = octets.partition(b"\r\n\r\n")[0].count(b"DKIM-Signature:")
    return [one.verify(idx=index, dnsfunc=lambda name, timeout=5: RECORDS.get(name.decode().rstrip("."))) for index in range(count)]


# -- what leaves ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, Policy(), Policy(encrypt=True)])
def test_what_leaves_is_signed_over_s_mime(policy):
    made = gateway(table=SIGN, built_in=[policy] if policy else [])
    assert made.submit(LETTER).code == 250 and made.trust(LETTER).code == 250
    assert [passes(octets) for octets in made.ready] == [[True, True]] * 2
    assert all(octets.startswith(b"DKIM-Signature: ") for octets in made.ready)
    if policy:
        assert all(b"pkcs7" in octets for octets in made.ready)


def test_the_nearest_domain_signs_and_others_are_not_signed_for():
    table = {"sign": [{"domain": "example.org", "selector": "rsa", "key": "dkim-rsa"}]}
    made = gateway(table=table)
    sub = LETTER.replace("alice@example.org", "alice@sub.example.org")
    made.submit(sub, sender="alice@sub.example.org", who=values.identity("alice", "@sub.example.org"))
    assert passes(made.ready[0]) == [True]
    made.submit(LETTER.replace("example.org", "example.net"), sender="alice@example.net", who=values.identity("alice", "@example.net"))
    assert b"DKIM-Signature" not in made.ready[1]
    other = gateway(table={**SIGN, "sign_origins": ["trusted"]})
    other.submit(LETTER)
    assert b"DKIM-Signature" not in other.ready[0]


def test_attack_from_of_ours_with_a_null_path_is_not_signed():
    """Our own MTA relays a stranger's bounce: nobody answers for its From."""
    made = gateway(table=SIGN)
    assert made.trust(LETTER, sender=None).code == 250
    assert b"DKIM-Signature" not in made.ready[0]
    assert made.arrive(LETTER, "alice@example.org", sender="alice@example.org").code == 250
    assert b"DKIM-Signature" not in made.ready[1]


def test_a_key_that_is_away_defers():
    class Out(MemoryKeys):
        out = False

        async def key(self, reference):
            if self.out:
                raise KeyUnavailable("the token is out")
            return await super().key(reference)

    out = Out(SoftwareKey("card", der(RSA)))
    made = gateway(out, table={"sign": [{"domain": "example.org", "selector": "rsa", "key": "card"}]})
    out.out = True
    assert made.submit(LETTER).code == 451 and not made.ready
    out.out = False
    assert made.submit(LETTER).code == 250 and passes(made.ready[0]) == [True]
    out.keys.clear()  # somebody has deleted it
    assert made.submit(LETTER).code == 451 and len(made.ready) == 1


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_a_key_from_a_file(tmp_path, form):
    path = tmp_path / "dkim.pem"
    path.write_bytes(RSA.private_bytes(Encoding.PEM, getattr(PrivateFormat, form), NoEncryption()))
    made = gateway(table={"sign": [{"domain": "Example.ORG", "selector": "rsa", "key_file": str(path)}]})
    made.submit(LETTER)
    assert passes(made.ready[0]) == [True]


def test_keys_that_cannot_sign_are_found_at_the_start(tmp_path):
    files = {}
    for name, data in (
        (
            "encrypted",
            RSA.private_bytes(
                Encoding.PEM,
                PrivateFormat.PKCS8,
                BestAvailableEncryption(b"x"),
            ),
        ),
        ("curve", ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        ("text", b"no key"),
    ):
        files[name] = tmp_path / name
        files[name].write_bytes(data)
    for path, why in (
        (tmp_path / "absent", "cannot be read"),
        (files["encrypted"], "encrypted"),
        (files["curve"], "type ec"),
        (files["text"], "not a private key"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            gateway(table={"sign": [{"domain": "example.org", "selector": "s", "key_file": str(path)}]})
    with pytest.raises(ConfigurationError, match="no key called nothing"):
        gateway(table={"sign": [{"domain": "example.org", "selector": "s", "key": "nothing"}]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"sign": [{"domain": "example.org", "selector": "s"}]},
        {"sign": [{"domain": "example.org", "selector": "s", "key": "a", "key_file": "b"}]},
        {"sign": [{"domain": "no domain", "selector": "s", "key": "a"}]},
        {"sign": [{"domain": "example.org", "selector": "s;", "key": "a"}]},
        {"sign": [{"domain": "example.org", "selector": "s", "key": "a"}, {"domain": "EXAMPLE.org", "selector": "S", "key": "b"}]},
        {"headers": ["Received"]},
        {"oversign": ["a:b"]},
        {"check": ["everything"]},
        {"max_signatures": 0},
        {"body": "strict"},
    ],
)
def test_settings_that_mean_nothing_are_mistakes(wrong):
    with pytest.raises(ValueError):
        DkimSettings.model_validate(wrong)


# -- what arrives -----------------------------------------------------------------------------------------------------------------


def signed_by_us(*policies) -> bytes:
    made = gateway(table=SIGN, built_in=policies)
    made.submit(LETTER)
    return made.ready[0]


def test_what_arrives_is_found_good_and_told():
    found = Findings()
    made = gateway(found)
    assert made.arrive(signed_by_us(), sender="alice@example.org").code == 250
    assert [(one.source, one.code, one.severity) for one in found.seen] == [("p0", "dkim-pass", "info")] * 2
    assert found.seen[0].data["domain"] == "example.org" and found.seen[0].data["aligned"] == "yes" and found.seen[0].data["bits"] == "2048"
    field = made.ready[0].replace(b"\r\n ", b" ").split(b"\r\n")[0].decode()
    assert field.startswith(
        "Authentication-Results: gw.example.org; dkim=pass header.d=example.org header.s=rsa header.a=rsa-sha256 header.b="
    )
    assert "; dkim=pass header.d=example.org header.s=ed header.a=ed25519-sha256" in field


def test_it_is_looked_at_before_anything_is_taken_off_or_opened():
    """A forged result is part of what was signed; the encrypted body is hashed as it came, not as it is read."""
    found = Findings()
    made = gateway(found, built_in=[Policy()])
    closed = signed_by_us(Policy(encrypt=True))
    assert made.arrive(closed, "alice@example.org", sender="alice@example.org").code == 250
    made.resume(made.rows[-1].id)
    assert [one.code for one in found.seen] == ["dkim-pass"] * 2


def test_what_was_changed_is_told_and_stops_nothing():
    found = Findings()
    made = gateway(found)
    assert made.arrive(signed_by_us().replace(b"hello", b"hallo"), sender="alice@example.org").code == 250
    assert [(one.code, one.severity) for one in found.seen] == [("dkim-body-changed", "warning")] * 2
    assert b'dkim=fail reason="the body was changed after it was signed"' in made.ready[0].replace(b"\r\n ", b" ")


def test_attack_dns_that_fails_delays_no_mail():
    found = Findings()
    runtime = FakeRuntime(records={(name, "TXT"): Unavailable("SERVFAIL") for name in RECORDS})
    made = gateway(found, runtime=runtime)
    assert made.arrive(signed_by_us(), sender="alice@example.org").code == 250
    assert [(one.code, one.severity) for one in found.seen] == [("dkim-temperror", "warning")] * 2
    assert b"dkim=temperror" in made.ready[0]


def test_unsigned_mail_and_other_origins():
    found = Findings()
    made = gateway(found)
    made.arrive(LETTER)
    assert [one.code for one in found.seen] == ["dkim-none"] and b"dkim=none" in made.ready[0]
    made.submit(LETTER)
    assert not found.seen and b"dkim=" not in made.ready[1]
    quiet = gateway(table={"results": False})
    quiet.arrive(LETTER)
    assert b"dkim=" not in quiet.ready[0]


def test_attack_a_forged_dkim_result_does_not_arrive():
    made = gateway()
    made.arrive("Authentication-Results: gw.example.org; dkim=pass header.d=bank.example\n" + LETTER)
    assert b"bank.example" not in made.ready[0] and made.ready[0].count(b"dkim=") == 1


def test_explaining_signs_nothing_and_asks_nobody_for_a_key_to_sign():
    made = gateway(table=SIGN, built_in=[Policy()], start=False)
    session = values.session(Origin.SUBMISSION)
    envelope = values.envelope("alice@example.org", "bob@example.net")
    transaction = made.pipeline.begin(session, envelope, values.message(LETTER).octets)
    assert made.runtime.run(made.pipeline.explain(transaction)).outcomes[0].decision.action == "deliver"


def test_a_large_message_costs_no_memory():
    """Promise 9: 64 MiB are signed and verified in blocks."""
    block = b"line of text  with blanks \r\n" * 3000
    header = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: large\r\n\r\n"
    times = 800

    def produce():
        yield header
        for _ in range(times):
            yield block

    segments = Segments.produced(len(header) + times * len(block), produce)
    made = gateway(table=SIGN)
    plugin = made.plugins.implementations("annotate_message")[0].function
    transaction = values.transaction(LETTER, in_session=values.session(Origin.SUBMISSION))
    tracemalloc.start()
    fields = made.runtime.run(plugin(transaction, segments))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [name for name, _ in fields] == ["DKIM-Signature"] * 2 and peak < 4 * 1024 * 1024
