"""Evidence in the database: kept, found, replaced, expired; and the lease."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mailsec.errors import InputError
from mailsec.store.evidence import EvidenceStore, KeptEvidence, fingerprint
from mailsec.x509.crl import load_crl

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())


def crl(number: int, *, this=NOW - DAY, until=NOW + DAY, issuer="CA") -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
    builder = builder.last_update(this).next_update(until).add_extension(x509.CRLNumber(number), False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.fixture
def database(db):
    return db


@pytest.fixture
def store(database) -> EvidenceStore:
    return EvidenceStore(database)


def response(octets: bytes, *, subject=b"certificate", fetched=NOW, until=NOW + DAY) -> KeptEvidence:
    return KeptEvidence("ocsp", fingerprint(subject), octets, "http://ocsp.example/", fetched, until)


def test_responses_are_found_until_they_end(store):
    store.keep([response(b"one"), response(b"other", subject=b"somebody else")])
    found = store.about([fingerprint(b"certificate")], at=NOW)
    assert found == [response(b"one")]
    assert store.about([fingerprint(b"certificate")], at=NOW + 2 * DAY) == []
    assert store.about([fingerprint(b"certificate")], at=NOW - DAY) == [response(b"one")]
    assert store.expire(NOW + 30 * DAY) == 0, "what has ended may still count for a while"
    assert store.expire(NOW + 32 * DAY) == 2 and store.expire(NOW + 32 * DAY) == 0


def test_only_the_newest_responses_stay(store):
    for number in range(5):
        store.keep([response(b"%d" % number, fetched=NOW + dt.timedelta(seconds=number))])
    store.keep([response(b"4", fetched=NOW + dt.timedelta(seconds=9))])
    assert [item.octets for item in store.about([fingerprint(b"certificate")], at=NOW)] == [b"4", b"3"]


def test_evidence_is_no_change_of_the_database_and_harms_no_sum(database, store):
    before = database.changes()
    store.keep([response(b"one")])
    store.keep_list(crl(1), at=NOW)
    assert database.changes() == before and database.check() == ()
    store.keep_list(crl(2), at=NOW, notice=True)
    assert database.changes() == before + 1 and database.check() == ()


def test_lists_are_found_by_issuer_and_address(store):
    kept = store.keep_list(crl(1), url="http://crl.example/", at=NOW)
    store.keep_list(crl(1, issuer="Other"), at=NOW)
    ids = [number for _, number in store.lists_of([load_crl(crl(1)).issuer.der])]
    assert ids == [kept.id] and [load_crl(each).issuer.text for each in store.list_octets(ids)] == ["CN=CA"]
    assert [number for _, number in store.lists_of([], ["http://crl.example/", ""])] == [kept.id]
    assert [(each.issuer, each.number, each.octets) for each in store.lists()] == [("CN=CA", "1", b""), ("CN=Other", "1", b"")]


def test_a_newer_list_of_the_same_address_replaces_the_older_one(store):
    store.keep_list(crl(1), url="http://crl.example/", at=NOW)
    new = store.keep_list(crl(2, this=NOW), url="http://crl.example/", at=NOW)
    assert [each.id for each in store.lists()] == [new.id]
    assert store.delete_list(new.id) and not store.delete_list(new.id) and store.lists() == []


def test_an_old_list_that_is_played_again_does_not_push_the_newer_one_out(store):
    store.keep_list(crl(2, this=NOW), url="http://crl.example/", at=NOW)
    store.keep_list(crl(1), url="http://crl.example/", at=NOW)
    assert "2" in [each.number for each in store.lists()]


def test_lists_that_end_are_named_for_refreshing(store):
    store.keep_list(crl(1), url="http://crl.example/", at=NOW)
    store.keep_list(crl(2, until=NOW + 9 * DAY), url="http://long.example/", at=NOW)
    store.keep_list(crl(3, issuer="imported"), at=NOW)
    assert store.sources_of_lists(NOW + 2 * DAY, fetched_before=NOW - DAY) == ["http://crl.example/"]
    old = store.sources_of_lists(NOW + 2 * DAY, fetched_before=NOW + DAY)
    assert sorted(old) == ["http://crl.example/", "http://long.example/"], "what was fetched long ago"
    store.expire(NOW + 10 * DAY)
    assert {each.issuer for each in store.lists()} == {"CN=CA", "CN=imported"}, "what a person imported stays"


def test_what_is_no_list_is_refused(store):
    with pytest.raises(InputError):
        store.keep_list(b"no list", at=NOW)


def test_one_worker_holds_the_lease(store):
    assert store.take_lease("refresh", "one", at=NOW, seconds=60)
    assert not store.take_lease("refresh", "two", at=NOW, seconds=60)
    assert store.take_lease("refresh", "one", at=NOW + dt.timedelta(seconds=30), seconds=60)
    assert not store.take_lease("refresh", "two", at=NOW + dt.timedelta(seconds=80), seconds=60)
    assert store.take_lease("refresh", "two", at=NOW + dt.timedelta(seconds=91), seconds=60), "whoever died loses it"
    store.give_lease_back("refresh", "one")
    assert not store.take_lease("refresh", "one", at=NOW + dt.timedelta(seconds=92), seconds=60)
    store.give_lease_back("refresh", "two")
    assert store.take_lease("refresh", "one", at=NOW + dt.timedelta(seconds=93), seconds=60)


def test_a_lease_from_a_clock_that_was_wrong_does_not_last_for_ever(store):
    assert store.take_lease("refresh", "one", at=NOW + 365 * DAY, seconds=60)
    assert store.take_lease("refresh", "two", at=NOW, seconds=60)
