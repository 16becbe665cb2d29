"""An authority with a register, as the responder sees it through the gateway."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from mailsec.errors import KeyUnavailable
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.trust import IssuedCertificate
from mailsec.pki.budget import Budget
from mailsec.pki.ocsp import judge_ocsp, ocsp_request
from mailsec.testing.authority import Authority
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec.x509.certificate import load_certificate
from mailsec.x509.issue import issue_responder, make_key, public_key_of
from mailsec_ocsp.responder import Responder
from mailsec_ocsp.settings import OcspSettings


class Company:
    """Half an `interfaces.Gateway`: one authority "CA", its register, and keys."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.ca = Authority("CA")
        self.ca_key = SoftwareKey("CA", self.ca.issuer._key, certificate=self.ca.certificate)
        self.keys = {"CA": self.ca_key}
        self.authorities = {"CA": (self.ca.certificate,)}
        self.register: dict[int, IssuedCertificate] = {}
        self.out: Exception | None = None
        self.events = []
        self.record = self.events.append

    def issue(self, address: str = "dora@example.org", by: Authority | None = None):
        by = by or self.ca
        certificate = load_certificate(by.issue(address).certificate)
        self.register[certificate.serial] = IssuedCertificate(by.certificate, certificate.serial, certificate.der, certificate.not_after)
        return certificate

    def revoke(self, certificate, reason: str = "keyCompromise") -> None:
        entry = self.register[certificate.serial]
        self.register[certificate.serial] = replace(entry, revoked_at=self.runtime.now(), reason=reason)

    def appoint(self, name: str, *, by: Authority | None = None, days: int = 90, kind: str = "ec-p256") -> SoftwareKey:
        key = make_key(kind)
        at = EPOCH - timedelta(hours=1)
        der = issue_responder((by or self.ca).issuer, common_name=name, public_key=public_key_of(key), at=at, random=os.urandom, days=days)
        self.keys[name] = SoftwareKey(name, key, certificate=der)
        return self.keys[name]

    async def key(self, name):
        return self.keys.get(name)

    async def authority(self, ca):
        if ca not in self.authorities:
            raise KeyUnavailable("none")
        return self.authorities[ca]

    async def issued_as(self, ca, serial):
        if self.out is not None:
            raise self.out
        return self.register.get(serial)

    def responder(self, **settings) -> Responder:
        return Responder(self, OcspSettings(**{"authorities": ["CA"]} | settings))

    def ask(self, responder: Responder, certificate, *, nonce: bytes | None = None):
        return self.answer(responder, ocsp_request(certificate, load_certificate(self.ca.certificate), nonce=nonce))

    def answer(self, responder: Responder, octets: bytes):
        return self.runtime.run(responder.answer(octets))

    def judged(self, answer, certificate):
        """What a client makes of an answer."""
        return judge_ocsp(
            answer.octets,
            certificate,
            load_certificate(self.ca.certificate),
            at=self.runtime.now(),
            backend=SoftwareBackend(),
            budget=Budget(),
        )


@pytest.fixture
def company() -> Company:
    return Company()
