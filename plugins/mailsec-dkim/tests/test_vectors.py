"""The examples of the RFCs, and dkimpy as an independent signer, verifier and canonicaliser."""

from __future__ import annotations

import base64
import hashlib
from itertools import pairwise

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.keys.software import SoftwareKey
from mailsec.mime.fields import encode_field
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import BytesOctets, Segments
from mailsec.testing.runtime import FakeRuntime
from mailsec_dkim.canonical import BodyDigest, relaxed_field
from mailsec_dkim.settings import DkimSettings
from mailsec_dkim.sign import FIELD, body_hash, header_of, signature_value
from mailsec_dkim.verify import verify_message

LETTER = b"""From: Joe SixPack <joe@football.example.com>\r
To: Suzie Q <suzie@shopping.example.net>\r
Subject: Is dinner ready?\r
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r
Message-ID: <20030712040037.46341.5F8J@football.example.com>\r
\r
Hi.\r
\r
We lost the game.  Are you hungry yet?\r
\r
Joe.\r
"""

# RFC 8463 appendix A: two signatures of football.example.com, with the keys of A.2.
RFC_8463 = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r
 d=football.example.com; i=@football.example.com;\r
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r
 subject : date : message-id : from : subject : date;\r
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r
 d=football.example.com; i=@football.example.com;\r
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r
 date : message-id : from : subject : date;\r
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r
"""
KEYS_8463 = {
    "brisbane._domainkey.football.example.com": b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"
    b"iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC"
    b"DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3"
    b"Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
}

# RFC 6376 appendix A.2, with the key of appendix C.
RFC_6376 = b"""DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r
      c=simple/simple; q=dns/txt; i=joe@football.example.com;\r
      h=Received : From : To : Subject : Date : Message-ID;\r
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\r
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\r
      4bmp/YzhwvcubU4=;\r
Received: from client1.football.example.com  [192.0.2.1]\r
      by submitserver.example.com with SUBMISSION;\r
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r
"""
KEYS_6376 = {
    "brisbane._domainkey.example.com": b"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkM"
    b"oGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/R"
    b"tdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToI"
    b"MmPSPDdQPNUYckcQ2QIDAQAB"
}

RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()


def pkcs8(key) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


RECORDS = {
    "rsa._domainkey.football.example.com": b"v=DKIM1; k=rsa; p="
    + base64.b64encode(RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    "ed._domainkey.football.example.com": b"v=DKIM1; k=ed25519; p="
    + base64.b64encode(ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
}
HANDLES = {"rsa": SoftwareKey("rsa", pkcs8(RSA)), "ed": SoftwareKey("ed", pkcs8(ED))}


def verified(octets: bytes, records, most: int = 5) -> list[str]:
    runtime = FakeRuntime(records={(name, "TXT"): [text] for name, text in records.items()})
    results = runtime.run(verify_message(BytesOctets(octets), runtime, DEFAULT_LIMITS, most=most, dns_seconds=5))
    return [one.word if one.word == "pass" else f"{one.word} {one.code}" for one in results]


def dkimpy_says(octets: bytes, records, index: int = 0) -> bool:
    return dkim.DKIM(octets).verify(idx=index, dnsfunc=lambda name, timeout=5: records.get(name.decode().rstrip(".")))


def signed(octets: bytes, *keys: str, **changes) -> bytes:
    """The octets with our signatures on top."""
    form = DkimSettings.model_validate(changes).form()
    segments = Segments((octets,))
    runtime = FakeRuntime()

    async def make() -> bytes:
        header = header_of(segments, DEFAULT_LIMITS)
        digest = await body_hash(segments, header.body_start, runtime, DEFAULT_LIMITS, relaxed=form.relaxed_body)
        fields = b""
        for key in keys:
            value = await signature_value(
                header, digest, HANDLES[key], domain="football.example.com", selector=key, form=form, now=1_767_268_800
            )
            fields += encode_field(FIELD, value)
        return fields + octets

    return runtime.run(make())


def test_the_example_of_rfc_8463():
    # as published, with an empty line behind "Joe." that both forms ignore
    assert verified(RFC_8463 + LETTER + b"\r\n", KEYS_8463) == ["pass", "pass"]
    assert verified(RFC_8463 + LETTER.replace(b"lost", b"won"), KEYS_8463) == ["fail body-changed"] * 2
    assert verified(RFC_8463 + LETTER.replace(b"dinner", b"lunch"), KEYS_8463) == ["fail signature-wrong"] * 2


def test_the_example_of_rfc_6376():
    # its form is "simple": one blank more is another message
    letter = RFC_6376 + LETTER.replace(b"game.  Are", b"game. Are")
    assert verified(letter, KEYS_6376) == ["pass"]
    assert verified(letter.replace(b"Subject: Is", b"Subject:  Is"), KEYS_6376) == ["fail signature-wrong"]
    assert verified(letter.replace(b"game. Are", b"game.  Are"), KEYS_6376) == ["fail body-changed"]


BODIES = {
    "plain": LETTER.partition(b"\r\n\r\n")[2],
    "empty": b"",
    "only-line-ends": b"\r\n\r\n\r\n",
    "only-blanks": b"  \r\n\t\r\n",
    "no-line-end": b"end",
    "blanks": b" a  b\t\tc \r\n  \r\nd  \r\n \r\n\r\n",
    "large": b"line of text  with blanks \r\n" * 5000,
}


@pytest.mark.parametrize("form", ["relaxed", "simple"])
@pytest.mark.parametrize("name", BODIES)
def test_what_we_sign_dkimpy_verifies_and_so_do_we(name, form):
    octets = signed(LETTER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + BODIES[name], "rsa", "ed", body=form)
    assert verified(octets, RECORDS) == ["pass", "pass"]
    assert dkimpy_says(octets, RECORDS, 0) and dkimpy_says(octets, RECORDS, 1)
    assert all(len(line) < 100 for line in octets.split(b"\r\n") if line.startswith((b" ", b"DKIM")))


def test_of_several_fields_of_a_name_the_last_is_signed_first():
    # RFC 6376 §5.4.2: what a hop adds stands on top, and leaves the signature as it is
    octets = b"List-Id: one\r\nList-Id: two\r\n" + LETTER
    ours = signed(octets, "rsa", headers=["From", "List-Id"], oversign=[])
    assert verified(ours, RECORDS) == ["pass"] and dkimpy_says(ours, RECORDS)
    pem = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    theirs = dkim.DKIM(octets).sign(b"rsa", b"football.example.com", pem, include_headers=[b"from", b"list-id"])
    assert verified(theirs + b"List-Id: three\r\n" + octets, RECORDS) == ["pass"]
    assert verified(theirs + octets.replace(b"two", b"2"), RECORDS) == ["fail signature-wrong"]


@pytest.mark.parametrize("change", [b"From: eve@football.example.com\r\n", b"Subject: again\r\n", b"Cc: eve@example.net\r\n"])
def test_attack_another_field_is_added_to_what_was_signed(change):
    octets = signed(LETTER, "rsa")
    head, _, rest = octets.partition(b"From: ")
    assert verified(change + octets, RECORDS) == ["fail signature-wrong"]
    assert verified(head + change + b"From: " + rest, RECORDS) == ["fail signature-wrong"]
    assert verified(b"X-Other: fine\r\n" + octets, RECORDS) == ["pass"]


@pytest.mark.parametrize("added", [b"From: eve@football.example.com\r\n", b"Subject: again\r\n", b"suBject : again\r\n"])
def test_attack_a_second_field_on_top_of_one_whose_signer_did_not_foresee_it(added):
    pem = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    field = dkim.DKIM(LETTER).sign(b"rsa", b"football.example.com", pem, include_headers=[b"from", b"subject"])
    assert verified(field + LETTER, RECORDS) == ["pass"]
    # the signature itself is right: of two fields the lower one is signed
    assert verified(added + field + LETTER, RECORDS) == ["policy added"]
    assert verified(added + field + LETTER.replace(b"Hi.", b"Ha."), RECORDS) == ["fail body-changed"]


@pytest.mark.parametrize("header", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
@pytest.mark.parametrize("name", BODIES)
def test_what_dkimpy_signs_we_verify(name, header, body):
    octets = LETTER.partition(b"\r\n\r\n")[0].replace(b"ready?", b"  ready?\r\n\t folded ") + b"\r\n\r\n" + BODIES[name]
    pem = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    field = dkim.DKIM(octets).sign(b"rsa", b"football.example.com", pem, canonicalize=(header, body))
    assert verified(field + octets, RECORDS) == ["pass"]
    limited = dkim.DKIM(octets).sign(b"rsa", b"football.example.com", pem, canonicalize=(header, body), length=True)
    assert verified(limited + octets, RECORDS) == ["pass"]
    assert verified(limited + octets + b"\r\nmore", RECORDS) == ["policy partial"]


TEXT = st.text(alphabet=" \t\r\nab", max_size=60).map(lambda text: text.encode()) | st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"\r\n\r\n", b" \r\n"]), max_size=30
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(body=TEXT, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_bodies_in_any_pieces_have_the_form_that_dkimpy_gives_them(body, cuts):
    whole = body.replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\n", b"\r\n")
    for relaxed, other in ((True, Relaxed), (False, Simple)):
        # a last line without its end gets one in both forms; dkimpy looks for blanks at its end only where it has one
        expected = other.canonicalize_body(whole + b"\r\n" if whole and not whole.endswith(b"\r\n") else whole)
        places = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
        digest = BodyDigest(relaxed=relaxed)
        for start, end in pairwise(places):
            digest.update(whole[start:end])
        assert digest.digest() == hashlib.sha256(expected).digest() and digest.length == len(expected)


@settings(max_examples=200, deadline=None)
@given(body=TEXT, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_bare_line_ends_are_not_lines_and_pieces_make_no_difference(body, cuts):
    for relaxed in (True, False):
        one, many = BodyDigest(relaxed=relaxed), BodyDigest(relaxed=relaxed)
        one.update(body)
        places = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
        for start, end in pairwise(places):
            many.update(memoryview(body)[start:end])
        assert one.digest() == many.digest() and one.length == many.length


@given(value=st.text(alphabet=" \tab:=", max_size=30), folds=st.lists(st.integers(0, 30), max_size=3))
def test_header_fields_have_the_form_that_dkimpy_gives_them(value, folds):
    text = value
    for at in sorted({min(at, len(value)) for at in folds}, reverse=True):  # from the right: no fold is cut by another
        text = text[:at] + "\r\n " + text[at:]
    raw = f"SubJect :{text}\r\n".encode()
    [(name, expected)] = Relaxed.canonicalize_headers([(b"SubJect ", text.encode() + b"\r\n")])
    assert relaxed_field(raw) == name.strip() + b":" + expected
