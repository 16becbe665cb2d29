"""Signatures and key records as attackers and strange domains write them: each ends in a result, none stops mail."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.errors import Unavailable
from mailsec.keys.software import SoftwareKey
from mailsec.mime.fields import encode_field
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import BytesOctets, Segments
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec_dkim.settings import DkimSettings
from mailsec_dkim.sign import FIELD, body_hash, header_of, signature_value
from mailsec_dkim.tags import TagError, read_tags
from mailsec_dkim.verify import verify_message

KEY = rsa.generate_private_key(65537, 2048)
HANDLE = SoftwareKey("key", KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
SPKI = base64.b64encode(KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
PKCS1 = base64.b64encode(KEY.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1))
RECORD = b"v=DKIM1; k=rsa; p=" + SPKI
NAME = "s._domainkey.example.org"
LETTER = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: hi\r\n\r\nhello\r\n"
NOW = int(EPOCH.timestamp())


def signed(octets: bytes = LETTER, domain: str = "example.org", **changes) -> bytes:
    form, runtime = DkimSettings.model_validate(changes).form(), FakeRuntime()
    segments = Segments((octets,))

    async def make() -> bytes:
        header = header_of(segments, DEFAULT_LIMITS)
        digest = await body_hash(segments, header.body_start, runtime, DEFAULT_LIMITS, relaxed=form.relaxed_body)
        value = await signature_value(header, digest, HANDLE, domain=domain, selector="s", form=form, now=NOW - 10)
        return encode_field(FIELD, value) + octets

    return runtime.run(make())


SIGNED = signed()


def results(octets: bytes, *records: object, most: int = 5):
    answer = records[0] if records and isinstance(records[0], Exception) else records
    runtime = FakeRuntime(records=dict.fromkeys(((NAME, "TXT"), ("s._domainkey.org", "TXT")), answer))
    return runtime.run(verify_message(BytesOctets(octets), runtime, DEFAULT_LIMITS, most=most, dns_seconds=5))


def told(octets: bytes, *records: object, **words) -> list[str]:
    return [f"{one.word} {one.code}" for one in results(octets, *records, **words)]


def changed(old: bytes, new: bytes) -> bytes:
    """The signed letter with a change in its signature."""
    head, _, rest = SIGNED.partition(b"From: ")
    unfolded = head.replace(b"\r\n ", b" ")
    assert old in unfolded
    return unfolded.replace(old, new) + b"From: " + rest


@pytest.mark.parametrize(
    ("record", "result"),
    [
        (RECORD, "pass pass"),
        (b"p=" + SPKI, "pass pass"),
        (b"v=DKIM1; p=" + PKCS1, "pass pass"),
        (RECORD + b"; t=y; s=email:other; h=sha1:sha256; n=a note", "pass pass"),
        (b"v=DKIM1; p=", "permerror key-revoked"),
        (b"k=rsa; v=DKIM1; p=" + SPKI, "permerror key-malformed"),
        (b"v=DKIM2; p=" + SPKI, "permerror key-malformed"),
        (b"v=DKIM1; k=ed25519; p=" + SPKI, "permerror key-type"),
        (b"v=DKIM1; h=sha1; p=" + SPKI, "permerror key-type"),
        (b"v=DKIM1; s=tlsrpt; p=" + SPKI, "permerror key-type"),
        (b"v=DKIM1; p=" + SPKI + b"; p=" + SPKI, "permerror key-malformed"),
        (b"v=DKIM1; p=****", "permerror key-malformed"),
        (b"v=DKIM1; p=" + SPKI[:40], "permerror key-malformed"),
        (b"v=DKIM1; p=" + base64.b64encode(b"\x30\x00"), "permerror key-malformed"),
        (b"v=DKIM1; p=" + SPKI + b"\xff", "permerror key-malformed"),
        (b"v=spf1 ip4:192.0.2.1 -all", "permerror no-key"),
    ],
)
def test_key_records(record, result):
    assert told(SIGNED, record) == [result]


def test_keys_that_are_not_what_the_signature_needs():
    other = rsa.generate_private_key(65537, 2048).public_key()
    assert told(SIGNED, b"p=" + base64.b64encode(other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))) == [
        "fail signature-wrong"
    ]
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert told(SIGNED, b"p=" + base64.b64encode(curve.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))) == [
        "permerror key-malformed"
    ]
    assert told(SIGNED) == ["permerror no-key"]
    assert told(SIGNED, RECORD, RECORD) == ["permerror no-key"]


def test_attack_a_key_that_anybody_can_factor():
    weak = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    short = rsa.RSAPublicNumbers(65537, weak.n >> 256 | 1).public_key()
    record = b"p=" + base64.b64encode(short.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    [result] = results(SIGNED, record)
    assert (result.word, result.code) == ("policy", "weak-key") and "768 bits" in result.message


def test_a_resolver_that_fails_or_hangs_is_a_temporary_result():
    assert told(SIGNED, Unavailable("no answer")) == ["temperror temperror"]

    class Hangs(FakeRuntime):
        async def resolve(self, name, kind):
            await self.sleep(1000)

    runtime = Hangs()
    many = SIGNED.replace(b"s=s;", b"s=other;").partition(b"From: ")[0] * 4 + SIGNED
    found = runtime.run(verify_message(BytesOctets(many), runtime, DEFAULT_LIMITS, most=5, dns_seconds=5))
    assert [one.word for one in found] == ["temperror"] * 5 and runtime.monotonic() < 10


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        (b"v=1;", b"v=2;", "permerror malformed"),
        (b"v=1;", b"", "permerror malformed"),
        (b"a=rsa-sha256", b"a=rsa-sha1", "permerror algorithm"),
        (b"a=rsa-sha256", b"a=ed25519-sha256", "permerror key-type"),
        (b"d=example.org", b"d=example.org; d=example.net", "permerror malformed"),
        (b"d=example.org", b"d=example..org", "permerror malformed"),
        (b"d=example.org", b"d=" + b"a" * 300 + b".org", "permerror malformed"),
        (b"s=s;", b"s=s/../x;", "permerror malformed"),
        (b"h=from:from", b"h=subject:to", "permerror from-unsigned"),
        (b"h=from", b"h=:from", "permerror malformed"),
        (b"t=", b"t=x", "permerror malformed"),
        (b"s=s;", b"s=s; i=alice@example.net;", "permerror malformed"),
        (b"s=s;", b"s=s; i=alice@notexample.org;", "permerror malformed"),
        (b"s=s;", b"s=s; q=dns/other;", "permerror malformed"),
        (b"s=s;", b"s=s; l=-1;", "permerror malformed"),
        (b"s=s;", b"s=s; l=" + b"9" * 80 + b";", "permerror malformed"),
        (b"s=s;", b"s=s; x=1;", "permerror malformed"),
        (b"c=relaxed/relaxed", b"c=relaxed/nowsp", "permerror canonicalization"),
        (b"bh=", b"bh=*", "permerror malformed"),
        (b"bh=", b"bh=AAAA", "fail body-changed"),
        (b"; b=", b"; b", "permerror malformed"),
        (b"s=s;", b"s=s; unknown=fine;", "fail signature-wrong"),
        (b"s=s;", b"s=s; l=3;", "fail body-changed"),
        (b"s=s;", b"s=s; l=99999;", "fail body-changed"),
        (b"s=s;", b"s=s;;", "permerror malformed"),
        (b"v=1;", b"v=1\0;", "permerror malformed"),
        (b"v=1;", "ü=1; v=1;".encode(), "permerror malformed"),
    ],
)
def test_attack_signatures_that_say_something_else(old, new, result):
    assert told(changed(old, new), RECORD) == [result]


def test_a_signature_that_has_expired_is_intact_and_not_accepted():
    expired = signed(expire_seconds=5)
    assert told(expired, RECORD) == ["policy expired"] and told(signed(expire_seconds=50), RECORD) == ["pass pass"]
    assert told(expired.replace(b"Subject: hi", b"Subject: ho"), RECORD) == ["fail signature-wrong"]


def test_a_domain_that_allows_no_subdomains():
    assert told(changed(b"s=s;", b"s=s; i=a@sub.example.org;"), RECORD + b"; t=s") == ["permerror identity"]


def test_attack_a_thousand_signatures():
    field = SIGNED.partition(b"From: ")[0]
    asked = []

    class Counts(FakeRuntime):
        async def resolve(self, name, kind):
            asked.append(name)
            return [RECORD]

    runtime = Counts()
    many = BytesOctets(field * 1000 + LETTER)
    found = runtime.run(verify_message(many, runtime, DEFAULT_LIMITS, most=5, dns_seconds=5))
    assert [one.word for one in found] == ["pass"] * 5 + ["permerror"] and found[-1].code == "too-many"
    assert asked == [NAME]


def test_attack_a_signed_field_is_named_ten_thousand_times():
    names = b":".join([b"from"] * 10_000)
    assert told(changed(b"h=from:", b"h=" + names + b":"), RECORD) == ["fail signature-wrong"]


def test_attack_blanks_and_line_ends_without_end_cost_linear_time():
    for body in (b" " * 5_000_000, b" \r\n" * 1_000_000, b"\r" * 3_000_000, b"\r\n" * 2_000_000 + b"x\r\n", b"\t " * 2_000_000 + b"x"):
        assert told(SIGNED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body, RECORD) == ["fail body-changed"]


@pytest.mark.parametrize(
    ("author", "aligned"),
    [
        (b"From: alice@example.org", True),
        (b"From: alice@sub.example.org", True),
        (b"From: alice@example.net", False),
        (b"From: alice@notexample.org", False),
        (b"From: alice@example.org, eve@example.net", False),
        (b"From: alice@example.org\r\nFrom: alice@example.org", False),
        (b"X: none", False),
    ],
)
def test_whether_the_domain_is_that_of_the_author(author, aligned):
    [result] = results(signed(LETTER.replace(b"From: alice@example.org", author)), RECORD)
    assert result.word == "pass" and result.aligned is aligned


def test_attack_a_key_of_a_top_level_domain_speaks_for_nobody_below_it():
    [result] = results(signed(domain="org"), RECORD)
    assert (result.word, result.domain, result.aligned) == ("pass", "org", False)


@settings(max_examples=300, deadline=None)
@given(value=st.binary(max_size=80) | st.text(alphabet="vabdhslxtqci=;: \t\r\n1.@", max_size=120).map(str.encode))
def test_any_value_is_read_or_is_a_fault(value):
    field = b"DKIM-Signature:" + value.replace(b"\r", b"").replace(b"\n", b"\r\n ") + b"\r\n"
    assert all(one.word in ("permerror", "policy", "fail", "temperror") for one in results(field + LETTER, RECORD))


@settings(max_examples=300, deadline=None)
@given(text=st.binary(max_size=60) | st.text(alphabet="ab=; \t", max_size=40).map(str.encode))
def test_a_list_of_tags_is_read_wholly_or_not_at_all(text):
    try:
        tags = read_tags(text)
    except TagError:
        return
    for name, tag in tags.items():
        assert text[: tag.start].rstrip().endswith(b"=") or text[tag.start - 1 : tag.start] == b"="
        assert text[tag.start : tag.end].replace(b"\r\n", b"").strip(b" \t\r\n").decode() == tag.value
        assert name.encode() in text[: tag.start]
