"""Whatever is protected in whatever way comes back as it was, trusted where it was signed, and open to nobody else."""

from __future__ import annotations

import base64
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.mime.parts import read_entity
from mailsec.mime.transfer import decode
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import ProtectionPlan

HEAD = b"From: alice@example.org\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?h=C3=A9?=\r\nMIME-Version: 1.0\r\n"

LINES = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=80), max_size=12).map(
    lambda lines: "".join(f"{line}\r\n" for line in lines).encode()
)
BODIES = st.one_of(
    LINES.map(lambda body: (b"text/plain; charset=utf-8", b"8bit", body, body)),
    st.binary(max_size=3000).map(
        lambda data: (b"application/octet-stream", b"base64", base64.encodebytes(data).replace(b"\n", b"\r\n"), data)
    ),
    st.binary(max_size=300).map(lambda data: (b"application/octet-stream", b"binary", data, data)),
)
PLANS = st.builds(
    ProtectionPlan,
    sign=st.just(True),
    encrypt=st.booleans(),
    signer=st.just("alice"),
    form=st.sampled_from(["detached", "opaque"]),
    header_protection=st.sampled_from(["no", "sign", "baseline", "shy"]),
    profile=st.sampled_from(["default", "compatible", "pss", "edi-energy", "fips-algorithms"]),
) | st.builds(
    ProtectionPlan,
    sign=st.just(True),
    encrypt=st.just(True),
    signer=st.just("alice"),
    wrap=st.sampled_from(["sign", "triple"]),
    compress=st.booleans(),
)


@settings(max_examples=60)
@given(BODIES, PLANS)
def test_what_is_protected_comes_back_as_it_was(
    people: SimpleNamespace, smime: SimpleNamespace, body: tuple[bytes, bytes, bytes, bytes], plan: ProtectionPlan
) -> None:
    kind, encoding, written, meant = body
    message = HEAD + b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + written
    recipients = [people.bob] if plan.encrypt else []
    sealed = smime.protect(message, plan, *recipients, signers=[people.alice])

    result = smime.peel(sealed, keys=[people.bob])
    assert result.content is not None, result.reasons
    entity = bytes(result.content.view(0, len(result.content)))
    part = read_entity(BytesOctets(entity), 0, len(entity))
    assert b"".join(map(bytes, decode(part.encoding, [entity[part.body_start :]]))) == meant
    verdict = smime.judge(sealed, people.ca, keys=[people.bob])
    assert verdict.trusted and verdict.encrypted == plan.encrypt, verdict.reasons
    assert not smime.judge(sealed, people.stranger, keys=[people.bob]).trusted
    if plan.encrypt:
        closed = smime.peel(sealed, keys=[people.alice])
        assert closed.layers[-1].opened is False and closed.clear is None and not closed.text
        assert len(meant) < 20 or (meant not in sealed and base64.b64encode(meant)[:20] not in sealed)
