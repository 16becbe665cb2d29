"""Evidence that workers share: found in the database, judged again, renewed before it ends by the one that holds the lease."""

from __future__ import annotations

import datetime as dt

import pytest

from mailsec.app.evidence_cache import DatabaseEvidence, certificates_of, kept_response
from mailsec.app.evidence_refresh import EvidenceRefresh
from mailsec.errors import StoreError
from mailsec.interfaces import EvidenceRequest
from mailsec.model.settings import RevocationSettings
from mailsec.pki.ocsp import ocsp_request
from mailsec.store.certdb import CertDb
from mailsec.store.evidence import EvidenceStore, KeptEvidence, fingerprint
from mailsec.x509.certificate import load_certificate

OCSP = "http://ocsp.example/"
CRL = "http://crl.example/ca.crl"


@pytest.fixture
def store(tmp_path, ca):
    with CertDb.create(str(tmp_path / "mailsec.db"), b"", at=ca.at, cost=2) as database:
        yield EvidenceStore(database)


def world_with(store, kit, ca, **more):
    world = kit.World(ca, **more)
    world.gate.pipeline._tools.evidence._inquiries._cache = DatabaseEvidence(store, world.network)
    return world


def settle(world) -> None:
    """Let what runs beside the mail end."""
    world.network.run(world.network.sleep(0.1))


def test_what_one_worker_learnt_another_one_knows(store, kit, ca):
    carol, dave = ca.person("carol@example.net", ocsp=OCSP), ca.person("dave@example.net", ocsp=OCSP)
    ca.revoke(dave)
    first, second = world_with(store, kit, ca), world_with(store, kit, ca)
    first.network.places[OCSP] = ca.answer
    assert [first.receive(person).word for person in (carol, dave)] == ["pass", "policy"]
    settle(first)
    assert [second.receive(person).word for person in (carol, dave)] == ["pass", "policy"]
    assert second.network.asked == []


def test_what_is_read_is_judged_again(store, kit, ca):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    request = ocsp_request(load_certificate(carol.der), load_certificate(ca.der))
    forged = ca.answer(request, forged=True)
    row = kept_response(carol.der, ca.der, forged, "planted", ca.at)
    store.keep([row])
    assert world_with(store, kit, ca).receive(carol).word == "temperror"


def test_what_was_of_no_use_is_not_kept(store, kit, ca):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = world_with(store, kit, ca)
    world.network.places[OCSP] = lambda request: ca.answer(request, forged=True)
    assert world.receive(carol).word == "temperror"
    settle(world)
    assert store.about([fingerprint(carol.der)], at=ca.at) == []


def test_an_imported_list_counts_within_a_minute(store, kit, ca):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = world_with(store, kit, ca)
    world.network.places[OCSP] = ca.answer
    assert world.receive(carol).word == "pass"
    ca.revoke(carol)
    store.keep_list(ca.crl(), at=ca.at)
    world.network.advance(61)
    assert world.receive(carol).word == "policy", "the list says revoked, whatever the responder said before"


def test_a_database_that_is_out_costs_evidence_and_no_message(store, kit, ca, monkeypatch):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = world_with(store, kit, ca)
    world.network.places[OCSP] = ca.answer

    def out(*_args, **_more):
        raise StoreError("locked")

    for name in ("about", "keep", "lists_of"):
        monkeypatch.setattr(store, name, out)
    assert world.receive(carol).word == "pass"
    settle(world)
    assert world.network.failures == []


def test_a_fetched_list_is_kept_with_its_address(store, kit, ca):
    carol = ca.person("carol@example.net", crl=CRL)
    world = world_with(store, kit, ca)
    world.network.places[CRL] = lambda _: ca.crl()
    assert world.receive(carol).word == "pass"
    settle(world)
    assert [one.url for one in store.lists()] == [CRL]


# -- renewed beside the mail ----------------------------------------------------------------------------------------------------


def refresh_of(store, world, **more) -> EvidenceRefresh:
    return EvidenceRefresh(store, world.network, RevocationSettings(**more))


def test_a_response_is_renewed_before_it_ends(store, kit, ca):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = world_with(store, kit, ca)
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at)
    assert world.receive(carol).word == "pass"
    settle(world)
    refresh = refresh_of(store, world)
    world.network.advance(12 * 3600)
    assert world.network.run(refresh.refresh()) == 0, "there is time"
    world.network.advance(7 * 3600)
    assert world.network.run(refresh.refresh()) == 1
    assert world.network.run(refresh.refresh()) == 0, "once"
    world.network.advance(10 * 3600)
    asked = len(world.network.asked)
    assert world_receives(store, kit, ca, world, carol) == "pass" and len(world.network.asked) == asked


def world_receives(store, kit, ca, world, person) -> str:
    """The word of another worker at the same instant, which may ask nobody."""
    other = world_with(store, kit, ca)
    other.network.advance((world.network.at - other.network.at).total_seconds())
    return other.receive(person).word


def test_a_response_that_cannot_be_believed_does_not_take_the_place_of_one_that_can(store, kit, ca):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = world_with(store, kit, ca)
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at)
    assert world.receive(carol).word == "pass"
    settle(world)
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at, forged=True)
    world.network.advance(20 * 3600)
    assert world.network.run(refresh_of(store, world).refresh()) == 0
    assert world_receives(store, kit, ca, world, carol) == "pass"


def test_a_revocation_is_learnt_by_renewing(store, kit, ca):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = world_with(store, kit, ca)
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at)
    assert world.receive(carol).word == "pass"
    settle(world)
    ca.revoke(carol)
    world.network.advance(20 * 3600)
    assert world.network.run(refresh_of(store, world).refresh()) == 1
    assert world.receive(carol).word == "policy", "though the answer that this worker remembers has not ended"


def test_lists_are_fetched_and_renewed(store, kit, ca):
    world = kit.World(ca)
    world.network.places[CRL] = lambda _: ca.crl(at=world.network.at, number=int(world.network.monotonic()) + 1)
    refresh = refresh_of(store, world, crl_urls=(CRL,))
    assert world.network.run(refresh.refresh()) == 1
    assert world.network.run(refresh.refresh()) == 0
    world.network.advance(23.5 * 3600)
    assert world.network.run(refresh.refresh()) == 1
    assert max(kept.next_update for kept in store.lists()) > world.network.at + dt.timedelta(hours=20)
    world.network.advance(23.5 * 3600)
    assert world.network.run(refresh.refresh()) == 1
    assert len(store.lists()) == 2, "those that have ended are not kept beside newer ones"


def test_what_is_out_does_not_end_the_job(store, kit, ca):
    world = kit.World(ca)
    refresh = refresh_of(store, world, crl_urls=(CRL, "http://other.example/x"))
    world.network.places["http://other.example/x"] = lambda _: ca.crl()
    assert world.network.run(refresh.refresh()) == 1


def test_one_worker_renews(store, kit, ca):
    world = kit.World(ca)
    one, two = refresh_of(store, world), refresh_of(store, world)
    assert one._take_lease(ca.at) and not two._take_lease(ca.at)
    one._task = world.network.start(world.network.sleep(1), "x")
    world.network.run(one.shutdown(None))
    assert two._take_lease(ca.at), "whoever ends gives it back"


def test_a_row_of_what_was_asked_that_was_edited(ca):
    row = KeptEvidence("asked", b"x" * 32, b"nonsense", "", ca.at, ca.at)
    assert certificates_of(row) is None
    row = KeptEvidence("asked", b"x" * 32, b"\x30\x00", "", ca.at, ca.at)
    assert certificates_of(row) is None


def test_evidence_about_nobody_we_asked_for_is_not_kept(store, kit, ca):
    carol, dave = ca.person("carol@example.net", ocsp=OCSP), ca.person("dave@example.net")
    request = ocsp_request(load_certificate(dave.der), load_certificate(ca.der))
    assert kept_response(carol.der, ca.der, ca.answer(request), "x", ca.at) is None
    assert EvidenceRequest("ocsp", carol.der, ca.der).urls == ()


def test_evidence_that_holds_for_weeks_is_looked_at_daily(store, kit, ca):
    carol, dave = ca.person("carol@example.net", ocsp=OCSP), ca.person("dave@example.net", crl=CRL)
    world = world_with(store, kit, ca)
    world.network.places |= {
        OCSP: lambda request: ca.answer(request, at=world.network.at, hours=24 * 30),
        CRL: lambda _: ca.crl(at=world.network.at, hours=24 * 30, number=int(world.network.monotonic()) + 1),
    }
    assert [world.receive(person).word for person in (carol, dave)] == ["pass", "pass"]
    settle(world)
    refresh = refresh_of(store, world)
    world.network.advance(23 * 3600)
    assert world.network.run(refresh.refresh()) == 0
    ca.revoke(carol, dave)
    world.network.advance(2 * 3600)
    assert world.network.run(refresh.refresh()) == 2
    assert world.network.run(refresh.refresh()) == 0, "once a day"
    assert [world.receive(person).word for person in (carol, dave)] == ["policy", "policy"]
