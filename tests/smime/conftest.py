"""People with keys, a CA that mail trusts, and one that it does not; and the three calls that the gateway makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.model.trust import Anchor
from mailsec.model.verdict import SmimeResult, Verdict
from mailsec.smime.assess import assess
from mailsec.smime.protect import protect_message
from mailsec.smime.unprotect import unprotect_message
from mailsec.testing.memory import MemoryScratch
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

AT = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)


async def work(cost: int, function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@dataclass
class Authority:
    der: bytes
    key: bytes

    def person(self, address: str, kind: str = "ec-p256", *more: str, usage: str = "sign") -> SoftwareKey:
        key = make_key(kind)
        addresses = [Address.parse(one) for one in (address, *more)]
        certificate = issue_mail(
            IssuedBy(self.der, self.key), addresses=addresses, public_key=public_key_of(key), at=AT, random=os.urandom, usage=usage
        )
        return SoftwareKey(address, key, certificate=certificate)

    @property
    def anchor(self) -> Anchor:
        return Anchor(self.der)


def authority(name: str) -> Authority:
    key = make_key("ec-p256")
    return Authority(make_ca(common_name=name, key=key, at=AT, random=os.urandom), key)


@pytest.fixture(scope="session")
def people() -> SimpleNamespace:
    """alice (P-256), bob (RSA-2048) of a CA that is trusted; mallory of another one, who says she is alice."""
    trusted, stranger = authority("Example Mail CA"), authority("Stranger CA")
    return SimpleNamespace(
        ca=trusted,
        stranger=stranger,
        alice=trusted.person("alice@example.org"),
        bob=trusted.person("bob@example.org", "rsa-2048", usage="both"),
        mallory=stranger.person("alice@example.org"),
    )


def sign(data: bytes, *signers: SoftwareKey, form: str = "detached", profile: str = "default", **more: Any) -> bytes:
    plan = ProtectionPlan(sign=True, signer="x", form=form, profile=profile)
    segments = run_now(
        protect_message(
            index_message(BytesOctets(data)),
            plan,
            signers=signers,
            backend=SoftwareBackend(),
            random=more.pop("random", os.urandom),
            work=work,
            at=AT,
            **more,
        )
    )
    written = segments.join()
    assert len(segments) == len(written)
    return written


def protect(data: bytes, plan: ProtectionPlan, *recipients: SoftwareKey, signers: Sequence[SoftwareKey] = (), **more: Any) -> bytes:
    """What `plan` makes of the message, for these recipients."""
    segments = run_now(
        protect_message(
            index_message(BytesOctets(data)),
            plan,
            signers=signers,
            recipients=[EncryptionRecipient(key.certificate) for key in recipients if key.certificate is not None],
            backend=SoftwareBackend(),
            random=os.urandom,
            work=work,
            at=AT,
            scratch=MemoryScratch,
            **more,
        )
    )
    written = segments.join()
    assert len(segments) == len(written) and written == segments.join()
    return written


def peel(data: bytes, **more: Any) -> SmimeResult:
    message = index_message(BytesOctets(data))
    return run_now(unprotect_message(message, backend=SoftwareBackend(), scratch=MemoryScratch, work=work, **more))


def judge(data: bytes, *anchors: Authority, at: datetime = AT, **more: Any) -> Verdict:
    result = peel(data, **more)
    return assess(
        result,
        index_message(BytesOctets(data)),
        anchors=[one.anchor for one in anchors],
        intermediates=(),
        at=at,
        backend=SoftwareBackend(),
    )


@pytest.fixture(scope="session")
def smime() -> SimpleNamespace:
    """`sign(data, *keys)`, `protect(data, plan, *recipients)`, `peel(data)`, `judge(data, *authorities)`."""
    return SimpleNamespace(sign=sign, protect=protect, peel=peel, judge=judge, work=work, at=AT)
