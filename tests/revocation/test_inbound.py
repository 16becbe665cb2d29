"""Mail from the Internet: revoked is not trusted, unknown is delivered and never "pass"; whatever responders do."""

from __future__ import annotations

import datetime as dt

import pytest
from authority import Authority
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mailsec.errors import LimitExceeded, Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Evidence

OCSP = "http://ocsp.example/"
CRL = "http://crl.example/ca.crl"


def test_good(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world.network.places[OCSP] = ca.answer
    assert world.receive(carol).word == "pass"
    assert world.network.asked == [OCSP]


def test_revoked_is_not_trusted(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    ca.revoke(carol)
    world.network.places[OCSP] = ca.answer
    received = world.receive(carol)
    assert received.word == "policy" and "revoked" in received.results


def test_unknown_is_delivered_and_never_pass(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP, crl=CRL)
    received = world.receive(carol)
    assert received.word == "temperror" and b"Hello." in received.octets
    assert world.network.asked == [OCSP, CRL], "lists are asked for where the responder does not answer"


def test_a_list_does_where_the_responder_is_down(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP, crl=CRL)
    world.network.places[CRL] = lambda _: ca.crl()
    assert world.receive(carol).word == "pass"
    ca.revoke(carol)
    dave = ca.person("dave@example.net", crl="http://crl.example/other.crl")
    ca.revoke(dave)
    world.network.places["http://crl.example/other.crl"] = lambda _: ca.crl(number=2)
    assert world.receive(dave).word == "policy"


def test_a_certificate_that_names_no_source_is_not_checked_and_may_pass(ca, kit):
    plain = ca.person("carol@example.net")
    assert kit.World(ca).receive(plain).word == "pass"
    assert kit.World(ca, mode="require").receive(plain).word == "temperror"
    assert kit.World(ca, mode="off").receive(plain).word == "pass"


def test_revocation_that_is_off_asks_nobody(ca, kit):
    world = kit.World(ca, mode="off")
    assert world.receive(ca.person("carol@example.net", ocsp=OCSP)).word == "pass"
    assert world.network.asked == []


def test_the_order_and_all_at_once(ca, kit):
    carol = ca.person("carol@example.net", ocsp=OCSP, crl=CRL)
    for more, expected in (({"order": ("crl", "ocsp")}, [CRL]), ({}, [OCSP]), ({"parallel": True}, [OCSP, CRL])):
        world = kit.World(ca, **more)
        world.network.places |= {OCSP: ca.answer, CRL: lambda _: ca.crl()}
        assert world.receive(carol).word == "pass"
        assert world.network.asked == expected


def test_an_answer_is_asked_for_once(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world.network.places[OCSP] = ca.answer
    for _ in range(3):
        assert world.receive(carol).word == "pass"
    world.network.advance(3600)
    assert world.receive(carol).word == "pass"
    assert world.network.asked == [OCSP]


def test_an_answer_that_has_ended_is_asked_for_again(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at)
    assert world.receive(carol).word == "pass"
    world.network.advance(25 * 3600)
    ca.revoke(carol)
    assert world.receive(carol).word == "policy"
    assert world.network.asked == [OCSP, OCSP]


# -- responders that do not do what they should ---------------------------------------------------------------------------------


def test_a_responder_that_hangs_is_waited_for_once(ca, world):
    people = [ca.person(f"p{number}@example.net", ocsp=OCSP) for number in range(3)]
    world.network.places[OCSP] = lambda _: "hangs"
    began = world.network.monotonic()
    assert world.receive(people[0]).word == "temperror"
    waited = world.network.monotonic() - began
    assert 9 < waited <= 25
    for person in people[1:]:
        assert world.receive(person).word == "temperror"
    assert world.network.monotonic() - began == waited and world.network.asked == [OCSP]
    world.network.places[OCSP] = ca.answer
    world.network.advance(120)
    assert world.receive(people[0]).word == "pass", "it is asked again by itself"


def test_a_responder_that_answers_for_another_certificate(ca, world):
    carol, dave = ca.person("carol@example.net", ocsp=OCSP), ca.person("dave@example.net")
    ca.revoke(carol)
    world.network.places[OCSP] = lambda request: ca.answer(request, about=dave)
    assert world.receive(carol).word == "temperror"


def test_a_responder_that_lies(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world.network.places[OCSP] = lambda request: ca.answer(request, forged=True)
    assert world.receive(carol).word == "temperror"


def test_a_responder_that_replays(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world.network.places[OCSP] = lambda request: ca.answer(request, nonce=b"y" * 32)
    assert world.receive(carol).word == "temperror"


def test_an_old_answer_without_a_nonce_is_replayed_after_its_end(ca, world):
    carol = ca.person("carol@example.net", ocsp=OCSP)
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at - dt.timedelta(days=3))
    assert world.receive(carol).word == "temperror"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"\x30\x03\x0a\x01\x06",
        b"\x30\x84\xff\xff\xff\xff",
        LimitExceeded("fetch_octets", "10 GB"),
        Unavailable("503", stage="http"),
    ],
)
def test_a_responder_that_answers_something_else(ca, world, answer):
    carol = ca.person("carol@example.net", ocsp=OCSP, crl=CRL)
    world.network.places |= {OCSP: lambda _: answer, CRL: lambda _: answer}
    assert world.receive(carol).word == "temperror"


def test_lists_that_cannot_be_believed(ca, world):
    for number, crl in enumerate(
        [
            ca.crl(sign_with=ec.generate_private_key(ec.SECP256R1())),
            ca.crl(at=ca.at - dt.timedelta(days=9)),
            Authority("Other", at=ca.at).crl(),
        ]
    ):
        person = ca.person(f"p{number}@example.net", crl=f"http://crl.example/{number}")
        world.network.places[f"http://crl.example/{number}"] = lambda _, crl=crl: crl
        assert world.receive(person).word == "temperror", number


def test_a_source_that_fails_costs_itself_only(ca, kit):
    class Broken:
        name = "broken"
        calls = 0

        @hookimpl
        def register_revocation_sources(self):
            return [self]

        async def evidence(self, request):
            self.calls += 1
            raise RuntimeError("a bug")

    broken = Broken()
    world = kit.World(ca, plugins=[broken], order=("broken", "ocsp", "crl"))
    world.network.places[OCSP] = ca.answer
    for number in range(3):
        assert world.receive(ca.person(f"p{number}@example.net", ocsp=OCSP)).word == "pass"
    assert broken.calls == 1, "it is not asked again at once"


def test_a_plugin_brings_evidence(ca, kit):
    carol = ca.person("carol@example.net")

    class Source:
        name = "mine"

        @hookimpl
        def register_revocation_sources(self):
            return [self]

        async def evidence(self, request):
            ca.revoke(carol)
            return [Evidence("crl", ca.crl(), "mine", ca.at)] if request.kind == "crl" else ()

    assert kit.World(ca, plugins=[Source()]).receive(carol).word == "policy", "also where the certificate names no source"


# -- limits -----------------------------------------------------------------------------------------------------------------------


def test_nobody_makes_us_ask_around_with_certificates_of_their_own(ca, world):
    stranger = Authority("Stranger", at=ca.at)
    mallory = stranger.person(
        "mallory@example.net", ocsp="http://victim.example/", crl="http://victim.example/2", issuers="http://victim.example/3"
    )
    assert world.receive(mallory).word == "policy"
    assert world.network.asked == []


def test_a_message_causes_four_look_ups_at_most(ca, world):
    def sources(name: str) -> dict:
        return {"ocsp": f"http://{name}.ocsp.example/", "crl": tuple(f"http://{name}{number}.example/" for number in range(50))}

    one = Authority("One", at=ca.at, issuer=ca, **sources("one"))
    two = Authority("Two", at=ca.at, issuer=one, **sources("two"))
    carol = two.person("carol@example.net", **sources("carol"))
    carol.handle = type(carol.handle)("carol", _pkcs8(carol), certificate=carol.der, chain=(two.der, one.der), assigned=(carol.address,))
    assert world.receive(carol).word == "temperror"
    assert len(world.network.asked) == 4


def _pkcs8(person) -> bytes:
    return person.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def test_authorities_are_asked_after_as_well(ca, kit):
    between = Authority("Between", at=ca.at, issuer=ca, ocsp=OCSP)
    carol = between.person("carol@example.net", ocsp="http://ocsp2.example/")
    world = kit.World(ca)
    world.network.places |= {OCSP: ca.answer, "http://ocsp2.example/": between.answer}
    assert world.receive(carol).word == "pass"
    ca.revoke(between)
    world = kit.World(ca)
    world.network.places |= {OCSP: ca.answer, "http://ocsp2.example/": between.answer}
    assert world.receive(carol).word == "policy"


def test_issuers_are_fetched_only_where_that_was_chosen(ca, kit):
    between = Authority("Between", at=ca.at, issuer=ca)
    carol = between.person("carol@example.net", issuers="http://ca.example/between.cer")
    carol.handle = type(carol)(carol.address, carol.key, carol.parsed).handle
    for fetch, word in ((False, "policy"), (True, "pass")):
        world = kit.World(ca, fetch_issuers=fetch)
        world.network.places["http://ca.example/between.cer"] = lambda _: between.der
        assert world.receive(carol).word == word
        assert bool(world.network.asked) is fetch


# -- responders of our choice -----------------------------------------------------------------------------------------------------


def test_a_responder_for_an_issuer(ca, kit):
    carol = ca.person("carol@example.net", ocsp="http://dead.example/")
    world = kit.World(ca, responders=(("CN=Revoking CA", OCSP),))
    world.network.places[OCSP] = ca.answer
    assert world.receive(carol).word == "pass"
    assert world.network.asked == [OCSP]
    ca.revoke(plain := ca.person("plain@example.net"))
    assert world.receive(plain).word == "policy", "also for certificates that name none"


def test_the_default_responder_is_asked_about_everything_and_believed_with_its_certificate(ca, kit):
    responder = Authority("Default responder", at=ca.at)
    carol = ca.person("carol@example.net")
    world = kit.World(ca, default_responder=OCSP, default_responder_certificate=responder.der)
    world.network.places[OCSP] = responder.answer
    assert world.receive(carol).word == "pass"
    world = kit.World(ca, default_responder=OCSP, default_responder_certificate=Authority("Another", at=ca.at).der)
    world.network.places[OCSP] = responder.answer
    assert world.receive(carol).word == "temperror"
    world = kit.World(ca, default_responder=OCSP, default_responder_certificate=responder.der)
    assert world.receive(carol).word == "temperror", "it is a source: without its answer nothing is known"


def test_short_questions_by_get_where_no_nonce_is_sent(ca, kit):
    import base64
    from urllib.parse import unquote

    carol = ca.person("carol@example.net", ocsp=OCSP)
    world = kit.World(ca, ocsp_nonce=False)
    world.network.places[OCSP + "*"] = lambda url: ca.answer(base64.b64decode(unquote(url.decode().removeprefix(OCSP))))
    assert world.receive(carol).word == "pass"
    assert world.network.asked[0].startswith(OCSP + "M")


def test_questions_name_a_certificate_with_sha_256_where_that_is_set(ca, kit):
    """RFC 9919 §3.1.1; the default is what older responders know, too."""
    from cryptography.x509 import ocsp

    carol, asked = ca.person("carol@example.net", ocsp=OCSP), []

    def answer(request: bytes) -> bytes:
        asked.append(ocsp.load_der_ocsp_request(request).hash_algorithm.name)
        return ca.answer(request)

    for changes in ({}, {"ocsp_hash": "sha256"}):
        world = kit.World(ca, **changes)
        world.network.places[OCSP] = answer
        assert world.receive(carol).word == "pass"
    assert asked == ["sha1", "sha256"]


def test_lists_in_files(ca, kit, tmp_path):
    carol = ca.person("carol@example.net")
    path = tmp_path / "ca.crl"
    path.write_bytes(ca.crl())
    world = kit.World(ca, crl_files=(str(path),))
    assert world.receive(carol).word == "pass"
    ca.revoke(carol)
    path.write_bytes(ca.crl(number=22))
    world.network.advance(61)
    assert world.receive(carol).word == "policy", "a file that changed is read again"
