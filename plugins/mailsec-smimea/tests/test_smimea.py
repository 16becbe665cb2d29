"""SMIMEA: the names, which records give a certificate, whom they bind it to, and that without DNSSEC nothing is used."""

from __future__ import annotations

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mailsec.errors import Unavailable
from mailsec.interfaces import DnsAnswer
from mailsec.model.address import Address
from mailsec.testing.authority import Authority
from mailsec.testing.contracts import check_certificate_directory
from mailsec.testing.runtime import FakeRuntime
from mailsec_smimea.directory import SmimeaDirectory, SmimeaSettings
from mailsec_smimea.names import owner_name, owner_names
from mailsec_smimea.records import certificates_of, read_records, record_for

AUTHORITY = Authority()
BOB = AUTHORITY.issue("bob@example.net").certificate
OWNER = owner_name("bob", "example.net")


def rdata(der: bytes = BOB, **choice):
    text = record_for(der, **choice).text("x", 60).partition(" SMIMEA ")[2]
    return dns.rdata.from_text("IN", "SMIMEA", text)


def found(*records, authentic: bool = True, binding: bool = True):
    return certificates_of(read_records(records), OWNER, authentic=authentic, binding=binding)


def directory(answers, **settings) -> tuple[SmimeaDirectory, FakeRuntime]:
    runtime = FakeRuntime(records=answers)
    return SmimeaDirectory(SmimeaSettings(**settings), runtime), runtime


@pytest.mark.parametrize(
    ("address", "name"),
    [
        # RFC 8162 §3: its own example
        ("hugh@example.com", "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6._smimecert.example.com"),
        ('"hugh"@EXAMPLE.com', "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6._smimecert.example.com"),
        ('"hu\\gh"@example.com', "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6._smimecert.example.com"),
    ],
)
def test_names_are_the_hash_of_the_canonical_local_part(address, name):
    assert owner_names(Address.parse(address)) == (name,)


def test_a_name_with_capitals_is_asked_for_as_written_and_then_in_lower_case():
    assert owner_names(Address.parse("Bob@example.net")) == (owner_name("Bob", "example.net"), OWNER)


def test_composed_and_decomposed_characters_have_one_name():
    assert owner_names(Address.parse("jo\u0308rg@b\u00fccher.example")) == owner_names(Address.parse("j\u00f6rg@xn--bcher-kva.example"))


def test_attack_the_kelvin_sign_is_nobody_elses_k():
    assert owner_name("k", "example.net") not in owner_names(Address.parse("\u212a@example.net"))


def test_an_address_literal_is_not_asked_for():
    assert owner_names(Address.parse("bob@[192.0.2.1]")) == ()


@given(st.emails())
def test_every_name_is_one_that_dns_can_carry(text):
    try:
        address = Address.parse(text)
    except ValueError:
        return
    for name in owner_names(address):
        label, place, _ = name.split(".", 2)
        assert len(label) == 56 and place == "_smimecert"


def test_usage_3_is_bound_by_the_domain_itself_and_usage_1_needs_a_path():
    three, one = found(rdata(usage=1), rdata(usage=3))
    assert (three.trusted_binding, one.trusted_binding) == (True, False) and three.der == one.der == BOB
    assert "usage 3" in three.origin and OWNER in three.origin
    assert not found(rdata(usage=3), binding=False)[0].trusted_binding


@pytest.mark.parametrize("usage", [0, 2])
def test_an_authority_helps_to_build_a_path_and_is_nobodys_certificate(usage):
    (one,) = found(rdata(AUTHORITY.certificate, usage=usage), rdata(usage=1))
    assert one.der == BOB and one.chain == (AUTHORITY.certificate,)
    assert found(rdata(AUTHORITY.certificate, usage=usage)) == ()


@pytest.mark.parametrize("choice", [{"selector": "spki"}, {"matching": "sha2-256"}, {"matching": "sha2-512"}])
def test_a_hash_or_a_bare_key_gives_no_certificate(choice):
    assert found(rdata(**choice)) == ()


def test_attack_an_answer_without_dnssec():
    (one,) = found(rdata(usage=3), authentic=False)
    assert one.against.code == "smimea-unsigned" and not one.trusted_binding


def test_attack_hundreds_of_records():
    assert len(found(*[rdata()] * 300)) == 8


def test_attack_records_that_are_not_what_they_say():
    weird = [dns.rdata.from_text("IN", "SMIMEA", text) for text in ("255 255 255 00", "3 0 0 3000", "3 0 0 ff")]
    assert [one.der for one in found(*weird)] == [b"\x30\x00", b"\xff"], "they are judged as everything that is found"


def test_it_keeps_the_contract_of_directories():
    one, runtime = directory({(OWNER, "SMIMEA"): DnsAnswer((rdata(),), True)})
    check_certificate_directory(one, runtime.run, Address.parse("bob@example.net"), Address.parse("carol@example.net"))


def test_dns_that_fails_is_not_nobody():
    one, runtime = directory({(OWNER, "SMIMEA"): Unavailable("SERVFAIL")})
    with pytest.raises(Unavailable):
        runtime.run(one.certificates(Address.parse("bob@example.net")))


def test_attack_name_servers_that_hang():
    one, runtime = directory({})

    async def hangs(name, kind, *, resolver=""):
        await runtime.sleep(3600)

    runtime.look_up = hangs
    with pytest.raises(Unavailable, match="in time"):
        runtime.run(one.certificates(Address.parse("bob@example.net")))
    assert runtime.monotonic() < 10


def test_the_resolver_of_the_settings_is_the_one_that_is_asked():
    one, runtime = directory({}, resolver="[::1]:5353")
    asked = []

    async def look_up(name, kind, *, resolver=""):
        asked.append((kind, resolver))
        return DnsAnswer()

    runtime.look_up = look_up
    runtime.run(one.certificates(Address.parse("bob@example.net")))
    assert asked == [("SMIMEA", "[::1]:5353")]


@pytest.mark.parametrize(
    "text", ["localhost", "dns.example:53", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:99999", "[::1", "::1:53:x", "1.2.3"]
)
def test_a_resolver_is_an_address(text):
    with pytest.raises(ValidationError):
        SmimeaSettings(resolver=text)


@pytest.mark.parametrize("text", ["", "127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:53"])
def test_addresses_of_resolvers(text):
    assert SmimeaSettings(resolver=text).resolver == text
