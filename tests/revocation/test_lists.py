"""Lists in the running gateway: deltas where lists and certificates say they are, several points, other schemes than HTTP."""

from __future__ import annotations

import pytest
from authority import DAY
from cryptography import x509

from mailsec.errors import Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Evidence
from mailsec.testing.runtime import EPOCH

OCSP = "http://ocsp.example/"
CRL = "http://crl.example/ca.crl"
DELTA = "http://crl.example/delta.crl"
LDAP = "ldap://directory.example/cn=CA,o=Example?certificateRevocationList;binary"
HOLD = x509.ReasonFlags.certificate_hold
BACK = x509.ReasonFlags.remove_from_crl


# -- deltas (RFC 5280 §4.2.1.15, §5.2.6) ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named_by", ["the list", "the certificate"])
def test_a_delta_says_who_was_revoked_since_the_list(ca, world, named_by):
    by_list = named_by == "the list"
    carol = ca.person("carol@example.net", crl=CRL, deltas="" if by_list else DELTA)
    world.network.places[CRL] = lambda _: ca.crl(deltas=DELTA if by_list else "")
    world.network.places[DELTA] = lambda _: ca.crl(number=2, base=1, serials=[carol.parsed.serial_number])
    assert world.receive(carol).word == "policy"
    assert world.network.asked == [CRL, DELTA]


def test_a_delta_that_cannot_be_had_takes_nothing_from_the_list(ca, world):
    carol = ca.person("carol@example.net", crl=CRL)
    world.network.places[CRL] = lambda _: ca.crl(deltas=DELTA)
    assert [world.receive(carol).word for _ in range(3)] == ["pass"] * 3
    assert world.network.asked == [CRL, DELTA], "it is not asked for with every message"


def test_a_delta_takes_off_the_list_what_was_on_hold(ca, world):
    carol = ca.person("carol@example.net", crl=CRL)
    ca.revoke(carol)
    world.network.places[CRL] = lambda _: ca.crl(deltas=DELTA, reason=HOLD)
    world.network.places[DELTA] = lambda _: ca.crl(number=2, base=1, reason=BACK)
    assert world.receive(carol).word == "pass"


def test_no_delta_is_asked_for_about_what_is_revoked_for_good(ca, world):
    carol = ca.person("carol@example.net", crl=CRL)
    ca.revoke(carol)
    world.network.places[CRL] = lambda _: ca.crl(deltas=DELTA)
    assert world.receive(carol).word == "policy" and world.network.asked == [CRL]


@pytest.mark.parametrize("lie", ["another key", "another list", "ended", "no list"])
def test_a_delta_that_cannot_be_believed_is_none(ca, kit, world, lie):
    carol = ca.person("carol@example.net", crl=CRL)
    ca.revoke(carol)
    other = kit.Authority("Other", at=ca.at)
    about = {"number": 2, "base": 1, "reason": BACK}
    octets = {
        "another key": lambda: ca.crl(**about, sign_with=other.key),
        "another list": lambda: ca.crl(**about | {"base": 5, "number": 6}),
        "ended": lambda: ca.crl(**about, at=ca.at - DAY, hours=23),
        "no list": lambda: b"<html>",
    }[lie]
    world.network.places |= {CRL: lambda _: ca.crl(deltas=DELTA, reason=HOLD), DELTA: lambda _: octets()}
    assert world.receive(carol).word == "policy"


def test_a_newer_delta_is_asked_for_when_one_has_ended(ca, world):
    carol = ca.person("carol@example.net", crl=CRL)
    now = world.network.now
    world.network.places[CRL] = lambda _: ca.crl(deltas=DELTA, hours=240)
    world.network.places[DELTA] = lambda _: ca.crl(number=2, base=1, hours=2)
    assert world.receive(carol).word == "pass"
    world.network.advance(3 * 3600)
    world.network.places[DELTA] = lambda _: ca.crl(number=3, base=1, at=now(), serials=[carol.parsed.serial_number])
    assert world.receive(carol).word == "policy"


# -- several distribution points --------------------------------------------------------------------------------------------------


def point(*urls: str, reasons=None) -> x509.DistributionPoint:
    return x509.DistributionPoint([x509.UniformResourceIdentifier(url) for url in urls], None, reasons, None)


def part(ca, reasons, *, revoked=()) -> bytes:
    """A list that speaks of some reasons only."""
    import datetime as dt

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.name)
    builder = builder.last_update(ca.at).next_update(ca.at + dt.timedelta(days=1)).add_extension(x509.CRLNumber(1), False)
    for serial in revoked:
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(ca.at).build())
    scope = x509.IssuingDistributionPoint(None, None, False, False, reasons, False, False)
    return builder.add_extension(scope, True).sign(ca.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_lists_of_several_reasons_are_fetched_until_every_reason_is_covered(ca, world):
    reasons = sorted(set(x509.ReasonFlags) - {x509.ReasonFlags.unspecified, BACK}, key=lambda reason: reason.value)
    shares = [frozenset(reasons[:3]), frozenset(reasons[3:5]), frozenset(reasons[5:])]
    places = [f"http://crl.example/{number}.crl" for number in range(3)]
    points = tuple(point(url, reasons=share) for url, share in zip(places, shares, strict=True))
    carol, dave = (ca.person(f"{name}@example.net", points=points) for name in ("carol", "dave"))
    for url, share in zip(places, shares, strict=True):
        last = url == places[-1]
        world.network.places[url] = lambda _, share=share, last=last: part(ca, share, revoked=[dave.parsed.serial_number] * last)
    assert world.receive(carol).word == "pass" and sorted(world.network.asked) == places
    assert world.receive(dave).word == "policy"


def test_the_second_name_of_a_point_is_asked_where_the_first_is_of_no_use(ca, kit):
    carol = ca.person("carol@example.net", crl=(CRL, "http://mirror.example/ca.crl"))
    for first in (None, lambda _: b"<html>", lambda _: ca.crl(at=ca.at - DAY, hours=23)):
        world = kit.World(ca)
        world.network.places["http://mirror.example/ca.crl"] = lambda _: ca.crl()
        if first:
            world.network.places[CRL] = first
        assert world.receive(carol).word == "pass"
    world.network.places[CRL] = lambda _: ca.crl()
    world = kit.World(ca)
    world.network.places[CRL] = lambda _: ca.crl()
    assert world.receive(carol).word == "pass" and world.network.asked == [CRL]


# -- other schemes ----------------------------------------------------------------------------------------------------------------


class Directory:
    """A plugin that speaks LDAP."""

    name = "ldap"

    def __init__(self, octets=None) -> None:
        self.octets = octets
        self.asked: list[tuple[str, ...]] = []

    @hookimpl
    def register_revocation_sources(self):
        return [self]

    def addresses(self, request):
        return [url for url in request.urls if url.startswith("ldap:")]

    async def evidence(self, request):
        if request.kind != "crl" or not request.urls:
            return ()
        self.asked.append(request.urls)
        if self.octets is None:
            raise Unavailable("the directory does not answer", stage="ldap")
        return [Evidence("crl", self.octets(), request.urls[0], EPOCH)]


def test_an_ldap_address_reaches_the_plugin_that_speaks_ldap_and_nobody_else(ca, kit):
    carol = ca.person("carol@example.net", crl=(LDAP,))
    directory = Directory(lambda: ca.crl())
    world = kit.World(ca, plugins=[directory])
    assert world.receive(carol).word == "pass"
    assert directory.asked == [(LDAP,)] and world.network.asked == []
    ca.revoke(dave := ca.person("dave@example.net", crl=(LDAP,)))
    assert kit.World(ca, plugins=[Directory(lambda: ca.crl(number=2))]).receive(dave).word == "policy"


def test_without_that_plugin_an_ldap_address_is_a_source_that_does_not_answer(ca, world):
    carol = ca.person("carol@example.net", crl=(LDAP,))
    assert world.receive(carol).word == "temperror" and world.network.asked == []


def test_a_directory_that_does_not_answer_leaves_the_http_name_of_the_point(ca, kit):
    carol = ca.person("carol@example.net", crl=(LDAP, CRL))
    world = kit.World(ca, plugins=[Directory()], order=("ldap", "ocsp", "crl"))
    world.network.places[CRL] = lambda _: ca.crl()
    assert world.receive(carol).word == "pass" and world.network.asked == [CRL]


def test_ldap_names_do_not_use_up_what_http_may_ask(ca, world):
    carol = ca.person("carol@example.net", crl=(LDAP, LDAP + "2", LDAP + "3", LDAP + "4", LDAP + "5", CRL))
    world.network.places[CRL] = lambda _: ca.crl()
    assert world.receive(carol).word == "pass"


def test_a_source_that_cannot_say_where_it_would_ask_does_not_answer(ca, kit):
    class Broken(Directory):
        name = "broken"

        def addresses(self, request):
            raise ZeroDivisionError

    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = kit.World(ca, plugins=[Broken()], order=("broken", "ocsp"))
    world.network.places[OCSP] = ca.answer
    assert world.receive(carol).word == "pass"
    assert kit.World(ca, plugins=[Broken()], order=("broken",)).receive(ca.person("dave@example.net")).word == "temperror"


def test_a_default_responder_is_asked_four_times_a_message_at_most(ca, kit):
    one = kit.Authority("One", at=ca.at, issuer=ca)
    chain = [one]
    for number in range(5):
        chain.append(kit.Authority(f"A{number}", at=ca.at, issuer=chain[-1]))
    carol = chain[-1].person("carol@example.net")
    key = carol.key.private_bytes(*_pkcs8())
    carol.handle = type(carol.handle)(
        "carol", key, certificate=carol.der, chain=tuple(authority.der for authority in reversed(chain)), assigned=(carol.address,)
    )
    world = kit.World(ca, default_responder="http://all.example/", default_responder_certificate=ca.der)
    world.network.places["http://all.example/"] = ca.answer
    assert world.receive(carol).word == "temperror"
    assert len(world.network.asked) == 4


def _pkcs8():
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
