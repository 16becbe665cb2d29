"""Attacks on what is asked, remembered and kept: by servers, by whoever sits before them, and by authorities that are limited."""

from __future__ import annotations

import datetime as dt

import pytest
from authority import DAY

from mailsec.app.evidence_cache import DatabaseEvidence
from mailsec.app.evidence_refresh import EvidenceRefresh
from mailsec.builtin.asking import Asking
from mailsec.builtin.ocsp import OcspSource
from mailsec.errors import LimitExceeded, Unavailable
from mailsec.gateway import inquiry
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


def with_database(world, store):
    world.gate.pipeline._tools.evidence._inquiries._cache = DatabaseEvidence(store, world.network)
    return world


def settle(world) -> None:
    world.network.run(world.network.sleep(0.1))


def inquiries(world):
    return world.gate.pipeline._tools.evidence._inquiries


# -- memory -----------------------------------------------------------------------------------------------------------------------


def test_large_lists_of_nothing_are_not_remembered(ca, kit, world):
    mallory = kit.Authority("Revoking CA", at=ca.at)
    for number in range(3):
        url = f"http://crl.example/{number}.crl"
        world.network.places[url] = lambda _: mallory.crl(serials=range(10_000, 10_500))
        carol = ca.person(f"carol{number}@example.net", crl=url)
        assert [world.receive(carol).word for _ in range(2)] == ["temperror"] * 2
    assert [kept.brought for kept in inquiries(world)._kept.values()] == [()] * 3


def test_what_was_not_remembered_still_counts_as_an_answer_that_is_lacking(ca, kit):
    """A source here says something about a certificate that names none; that it cannot be believed is not the same as silence."""
    from mailsec.hookspecs import hookimpl
    from mailsec.interfaces import Evidence

    mallory = kit.Authority("Revoking CA", at=ca.at)

    class Source:
        name = "mine"

        @hookimpl
        def register_revocation_sources(self):
            return [self]

        async def evidence(self, request):
            return [Evidence("crl", mallory.crl(), "mine", ca.at)] if request.kind == "crl" else ()

    world = kit.World(ca, plugins=[Source()])
    carol = ca.person("carol@example.net")
    assert [world.receive(carol).word for _ in range(3)] == ["temperror"] * 3


def test_an_authority_whose_every_certificate_names_a_list_of_its_own_does_not_fill_memory(ca, world, monkeypatch):
    monkeypatch.setattr(inquiry, "_MOST_LIST_OCTETS", 50_000)
    for number in range(8):
        url = f"http://crl.example/{number}.crl"
        world.network.places[url] = lambda _, number=number: ca.crl(number=number + 1, serials=range(10_000, 10_500))
        assert world.receive(ca.person(f"carol{number}@example.net", crl=url)).word == "pass"
    kept = inquiries(world)
    assert kept._list_octets == sum(map(len, kept._lists)) <= 50_000
    assert sum(len(item.data) for one in kept._kept.values() for item in one.brought) <= 50_000


def test_a_hundred_thousand_small_lists_at_one_address_are_not_all_read(ca, world):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    one = x509.load_der_x509_crl(ca.crl()).public_bytes(Encoding.PEM)
    world.network.places[CRL] = lambda _: one * 2000
    carol = ca.person("carol@example.net", crl=CRL)
    request = EvidenceRequest("crl", carol.der, ca.der, (CRL,))
    source = next(source for source in inquiries(world).sources if source.name == "crl")
    assert len(world.network.run(source.evidence(request))) == 16
    assert world.receive(carol).word == "pass"


# -- what is kept -----------------------------------------------------------------------------------------------------------------


def test_a_forged_answer_is_not_kept_beside_one_that_was_believed(ca, kit, store):
    carol = ca.person("carol@example.net", ocsp=OCSP, crl=CRL)
    world = with_database(kit.World(ca, parallel=True), store)
    world.network.places |= {OCSP: lambda request: ca.answer(request, forged=True), CRL: lambda _: ca.crl()}
    assert world.receive(carol).word == "pass"
    settle(world)
    assert store.about([fingerprint(carol.der)], at=ca.at) == [] and len(store.lists()) == 1


def test_a_forged_list_that_is_newer_does_not_push_out_the_one_that_was_believed(ca, kit, store):
    carol = ca.person("carol@example.net", crl=CRL)
    world = with_database(kit.World(ca), store)
    world.network.places[CRL] = lambda _: ca.crl()
    assert world.receive(carol).word == "pass"
    settle(world)
    mallory = kit.Authority("Revoking CA", at=ca.at)
    refresh = EvidenceRefresh(store, world.network, RevocationSettings(crl_urls=(CRL,)))
    world.network.advance(23.5 * 3600)
    world.network.places[CRL] = lambda _: mallory.crl(at=world.network.now(), hours=240)
    assert world.network.run(refresh.refresh()) == 1
    other = with_database(kit.World(ca), store)
    other.network.advance(23.6 * 3600)
    assert other.receive(carol).word == "pass" and other.network.asked == [], "the honest list holds for another half an hour"


def test_a_list_from_the_future_which_would_be_the_newest_for_ever_is_not_kept(ca, kit, store):
    world = kit.World(ca)
    refresh = EvidenceRefresh(store, world.network, RevocationSettings(crl_urls=(CRL,)))
    world.network.places[CRL] = lambda _: ca.crl(at=ca.at + 3650 * DAY)
    assert world.network.run(refresh.refresh()) == 0 and store.lists() == []


def test_a_certificate_that_names_a_thousand_dead_responders_does_not_stop_the_refreshing(ca, kit, store):
    from mailsec.asn1 import writer

    world = kit.World(ca)
    carol = ca.person("carol@example.net", ocsp=OCSP)
    many = tuple(f"http://{number}.example/" for number in range(50))
    carol = _naming(ca, many)
    octets = ca.answer(ocsp_request(load_certificate(carol.der), load_certificate(ca.der)), hours=1)
    until = ca.at + dt.timedelta(hours=1)
    subject = fingerprint(carol.der)
    began = ca.at - dt.timedelta(hours=10)
    asked = writer.sequence(carol.der, ca.der)
    store.keep(
        [
            KeptEvidence("ocsp", subject, octets, "x", began, until),
            KeptEvidence("asked", subject, asked, "x", began, ca.at + 7 * DAY),
        ]
    )
    refresh = EvidenceRefresh(store, world.network, RevocationSettings())
    world.network.run(refresh.refresh())
    assert len(world.network.asked) == 2


def _naming(ca, urls):
    from authority import Person
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import AuthorityInformationAccessOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "carol")])
    access = [x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)) for url in urls]
    builder = ca._builder(name, key.public_key(), ca.name, ca.key).add_extension(x509.AuthorityInformationAccess(access), False)
    return Person("carol@example.net", key, builder.sign(ca.key, hashes.SHA256()))


def test_a_pass_that_lasts_longer_than_the_lease_ends_where_another_worker_has_it(ca, kit, store):
    world = kit.World(ca)
    urls = tuple(f"http://{number}.example/" for number in range(12))
    refresh = EvidenceRefresh(store, world.network, RevocationSettings(crl_urls=urls))
    other = EvidenceRefresh(store, world.network, RevocationSettings())
    world.network.places["http://0.example/"] = lambda _: "hangs"

    def stolen(_):
        assert other._store.take_lease("refresh", other._holder, at=world.network.now(), seconds=180.0)
        return b""

    world.network.places["http://1.example/"] = stolen
    world.network.run(refresh.refresh())
    assert len(world.network.asked) == 4, "the first four, and no more"


# -- hosts that others need -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        LimitExceeded("fetch_octets", "the answer is longer than 10485760 octets", stage="fetch"),
        Unavailable("crl.example answers 404", stage="http"),
        Unavailable("10.0.0.1 has no public address", stage="http"),
    ],
    ids=["something large", "404", "a redirect to a private address"],
)
def test_an_address_of_no_use_does_not_take_its_host_from_others(world, trouble):
    world.network.places |= {"http://crl.example/trap": lambda _: trouble, CRL: lambda _: b"list"}
    asking = Asking(world.network)
    for _ in range(2):
        with pytest.raises(Unavailable):
            world.network.run(asking.ask("http://crl.example/trap"))
    assert world.network.run(asking.ask(CRL)) == b"list"
    assert world.network.asked == ["http://crl.example/trap", CRL], "the address itself is left alone for a while"


def test_a_host_that_does_not_answer_is_left_alone_whatever_is_asked_of_it(world):
    world.network.places["http://crl.example/1"] = lambda _: Unavailable("nobody", stage="fetch")
    asking = Asking(world.network)
    for url in ("http://crl.example/1", CRL):
        with pytest.raises(Unavailable):
            world.network.run(asking.ask(url))
    assert world.network.asked == ["http://crl.example/1"]


# -- responders -------------------------------------------------------------------------------------------------------------------


def test_a_nonce_is_new_for_each_question_and_another_workers_answer_is_no_replay(ca, kit):
    """Two workers ask about one certificate; what one was told is refused as an answer to the other, and is evidence all the same."""
    carol = ca.person("carol@example.net", ocsp=OCSP)
    heard = []

    def record(request):
        heard.append(ca.answer(request))
        return heard[-1]

    one = kit.World(ca)
    one.network.places[OCSP] = record
    request = EvidenceRequest("ocsp", carol.der, ca.der, (OCSP,))
    sources = [OcspSource(RevocationSettings(), one.network, Asking(one.network)) for _ in range(2)]
    for source in sources:
        one.network.run(source.evidence(request))
    assert heard[0] != heard[1], "the nonces differ"
    one.network.places[OCSP] = lambda _: heard[0]
    with pytest.raises(Unavailable, match="another request"):
        one.network.run(sources[1].evidence(request))


def test_a_name_without_http_is_never_asked_by_the_built_in_sources(ca, world):
    carol = ca.person("carol@example.net", ocsp="gopher://ocsp.example/", crl=("file:///etc/passwd", "ftp://crl.example/"))
    assert world.receive(carol).word == "temperror" and world.network.asked == []
