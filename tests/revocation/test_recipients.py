"""Whom one may encrypt for: revoked never, unknown not yet; evidence that has ended counts for a while, after newer was asked for."""

from __future__ import annotations

import datetime as dt

import pytest

from mailsec.app.evidence_cache import DatabaseEvidence
from mailsec.model.verdict import Revocation
from mailsec.store.certdb import CertDb
from mailsec.store.evidence import EvidenceStore

OCSP = "http://ocsp.example/"
CRL = "http://crl.example/ca.crl"
DAY = dt.timedelta(days=1)


def status(world, person):
    """What is known of a recipient's certificate now."""
    return world.network.run(world.gate.pipeline._tools.evidence.recipient(person.der))


def test_good_may_be_encrypted_for(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world.network.places[OCSP] = ca.answer
    result = status(world, carol)
    assert result.accepted and result.revocation is Revocation.GOOD


def test_revoked_may_not(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    ca.revoke(carol)
    world.network.places[OCSP] = ca.answer
    result = status(world, carol)
    assert not result.accepted and result.revocation is Revocation.REVOKED


def test_unknown_may_not_yet_and_is_asked_again(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    result = status(world, carol)
    assert result.valid and not result.accepted and result.revocation is Revocation.UNKNOWN
    world.network.places[OCSP] = ca.answer
    world.network.advance(61)
    assert status(world, carol).accepted


def test_without_revocation_the_path_is_all_that_is_asked(ca, kit):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = kit.World(ca, mode="off")
    assert status(world, carol).accepted and world.network.asked == []
    other = kit.Authority("Stranger", at=ca.at).person("dave@example.net")
    assert not status(world, other).valid


@pytest.fixture
def store(tmp_path, ca):
    with CertDb.create(str(tmp_path / "mailsec.db"), b"", at=ca.at, cost=2) as database:
        yield EvidenceStore(database)


def with_database(world, store):
    world.gate.pipeline._tools.evidence._inquiries._cache = DatabaseEvidence(store, world.network, grace=7 * DAY)
    return world


@pytest.mark.parametrize("other_worker", [False, True], ids=["what this worker knows", "what another worker kept"])
def test_evidence_counts_seven_days_past_its_end_and_newer_is_asked_for_first(ca, kit, store, other_worker):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = with_database(kit.World(ca), store)
    world.network.places[OCSP] = ca.answer
    assert status(world, carol).accepted
    world.network.run(world.network.sleep(0.1))
    if other_worker:
        world = with_database(kit.World(ca), store)
    del world.network.asked[:]
    world.network.places.clear()
    world.network.advance(5 * 86400)
    store.expire(world.network.now())
    late = status(world, carol)
    assert world.network.asked == [OCSP], "newer evidence was asked for"
    assert late.accepted and "evidence-overdue" in [reason.code for reason in late.reasons]
    assert world.receive(carol).word == "temperror", "mail from outside: what has ended is no evidence"
    world.network.advance(4 * 86400)
    assert status(world, carol).revocation is Revocation.UNKNOWN


def test_a_status_that_comes_back_counts_at_once_where_evidence_has_ended(ca, kit, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world.network.places[OCSP] = ca.answer
    assert status(world, carol).accepted
    world.network.advance(2 * 86400)
    ca.revoke(carol)
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.now())
    assert status(world, carol).revocation is Revocation.REVOKED


def test_no_grace_where_none_is_configured(ca, kit):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = kit.World(ca, grace_days=0)
    world.network.places[OCSP] = ca.answer
    assert status(world, carol).accepted
    world.network.places.clear()
    world.network.advance(2 * 86400)
    assert status(world, carol).revocation is Revocation.UNKNOWN
