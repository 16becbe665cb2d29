"""Seeds of the fuzzers: people, and what they signed."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mailsec.cms.sign import certs_only, detached, opaque, sign_content, signer_for
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.octets import BytesOctets, Segments
from mailsec.model.protection import ProtectionPlan
from mailsec.smime.protect import protect_message
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

AT = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
CONTENT = b"Content-Type: text/plain\r\n\r\nhello\r\n"
MAIL = b"From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?h=C3=A9?=\r\nMIME-Version: 1.0\r\n" + CONTENT


async def work(cost, function, *args):
    return function(*args)


def _person(ca: IssuedBy, kind: str) -> SoftwareKey:
    key = make_key(kind)
    addresses = [Address.parse("alice@example.org"), Address.parse("älice@example.org")]
    certificate = issue_mail(ca, addresses=addresses, public_key=public_key_of(key), at=AT, random=os.urandom, usage="sign")
    return SoftwareKey("alice", key, certificate=certificate, chain=(ca.certificate,))


@pytest.fixture(scope="session")
def world() -> SimpleNamespace:
    """A CA, Alice with two keys, her CMS objects and her messages."""
    ca_key = make_key("ec-p256")
    ca = IssuedBy(make_ca(common_name="Fuzz CA", key=ca_key, at=AT, random=os.urandom, domains=("example.org",)), ca_key)
    alice, rsa = _person(ca, "ec-p256"), _person(ca, "rsa-2048")
    private = make_key("ec-p256")

    def info(key: SoftwareKey) -> tuple:
        signer = signer_for(key)
        digest = SoftwareBackend().hash(signer.digest)
        digest.update(CONTENT)
        return signer, run_now(sign_content(signer, digest.digest(), at=AT))

    signers, infos = zip(*(info(alice), info(rsa)), strict=True)
    whole = opaque(Segments((CONTENT,)), signers[:1], infos[:1]).join()
    two = opaque(Segments((CONTENT,)), signers, infos).join()
    apart = detached(signers[:1], infos[:1])

    def sign(form: str, data: bytes = MAIL) -> bytes:
        plan = ProtectionPlan(sign=True, signer="alice", form=form)
        message = index_message(BytesOctets(data))
        return run_now(
            protect_message(message, plan, signers=[alice], backend=SoftwareBackend(), random=os.urandom, work=work, at=AT)
        ).join()

    mails = [sign("detached"), sign("opaque"), sign("opaque", sign("detached"))]
    return SimpleNamespace(
        ca=ca,
        alice=alice,
        rsa=rsa,
        private=private,
        cms=[whole, two, apart, certs_only([ca.certificate])],
        mails=mails,
        content=CONTENT,
        at=AT,
    )
