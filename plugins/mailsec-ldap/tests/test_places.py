"""Which `ldap:` addresses of strangers are asked, and which settings make no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mailsec.errors import Unavailable
from mailsec.interfaces import EvidenceRequest
from mailsec.testing.runtime import FakeRuntime
from mailsec_ldap.lists import LdapLists
from mailsec_ldap.places import ListAddress, ServerAddress
from mailsec_ldap.servers import Servers
from mailsec_ldap.settings import LdapSettings

ENTRY = "cn=CA,o=Example"


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        (
            "ldap://ca.example/cn=CA,o=Example?certificateRevocationList;binary",
            ("ca.example", 389, ENTRY, "certificateRevocationList"),
        ),
        ("LDAP://CA.example:1389/cn=CA,o=Example", ("ca.example", 1389, ENTRY, "certificateRevocationList")),
        (
            "ldap:///CN=CA,CN=CDP,DC=ad,DC=example?certificateRevocationList?base?objectClass=cRLDistributionPoint",
            ("", 389, "CN=CA,CN=CDP,DC=ad,DC=example", "certificateRevocationList"),
        ),
        ("ldap://h/cn=A%20B%5C%2C?authorityRevocationList?base?(objectclass=*)", ("h", 389, "cn=A B\\,", "authorityRevocationList")),
        ("ldap://h/cn=A%20B?deltaRevocationList", ("h", 389, "cn=A B", "deltaRevocationList")),
    ],
)
def test_addresses_as_authorities_write_them(url, meant):
    place = ListAddress.of_url(url)
    assert (place and (place.host, place.port, place.entry, place.attribute)) == meant


@pytest.mark.parametrize(
    "url",
    [
        "http://h/cn=CA",
        "ldaps://h/cn=CA",
        "ldapi://%2fvar%2frun%2fldapi/cn=CA",
        "ldap://h/",
        "ldap://h",
        "ldap://h/cn=CA?userPassword",
        "ldap://h/cn=CA?certificateRevocationList,userPassword",
        "ldap://h/cn=CA?*",
        "ldap://h/cn=CA?certificateRevocationList?sub",
        "ldap://h/cn=CA?certificateRevocationList?one",
        "ldap://h/cn=CA?certificateRevocationList?base?(|(a=*)(b=*))",
        "ldap://h/cn=CA?certificateRevocationList?base?(uid=*)",
        "ldap://h/cn=CA?certificateRevocationList?base??!bindname=cn=admin",
        "ldap://user:secret@h/cn=CA",
        "ldap://h:99999/cn=CA",
        "ldap://h:x/cn=CA",
        "ldap://[::1/cn=CA",
        "ldap://h/cn=CA#x",
        "ldap://h/cn=C A",
        "ldap://h/cn=CA\r\nx",
        "ldap://h/cn=%00",
        "ldap://h/cn=%ff",
        "ldap://h/no name",
        "ldap://h/cn=" + "x" * 3000,
        "ldap://h/" + ",".join(["o=x"] * 100),
    ],
)
def test_attack_addresses_that_ask_for_something_else(url):
    assert ListAddress.of_url(url) is None


@given(st.text(max_size=200))
def test_no_address_breaks_it(text):
    for url in (text, "ldap://" + text, "ldap:///" + text, "ldap://h/cn=x?" + text):
        ListAddress.of_url(url)


def source(runtime: FakeRuntime | None = None, **settings) -> LdapLists:
    runtime = runtime or FakeRuntime()
    return LdapLists(LdapSettings(**settings), runtime, Servers(runtime, seconds=1.0, connections=1))


def asks(one: LdapLists, *urls: str) -> list[str]:
    return list(one.addresses(EvidenceRequest("crl", b"", urls=urls)))


def test_attack_a_certificate_sends_us_to_a_machine_of_ours():
    urls = [
        f"ldap://{host}/cn=CA" for host in ("127.0.0.1", "169.254.169.254", "ldap.example.org", "10.0.0.1:22", "other.example", "[::1]")
    ]
    assert asks(source(servers=["ldap://ldap.example.org"]), *urls, "ldap:///cn=CA") == [], "own servers are not asked for lists unasked"
    one = source(servers=["ldap://ldap.example.org"], lists=True, list_servers=["ca.example", "ca.example:1389"])
    assert asks(one, *urls, "ldap:///cn=CA") == ["ldap://ldap.example.org/cn=CA", "ldap:///cn=CA"]
    assert asks(one, "ldap://ca.example:22/cn=CA", "ldap://ca.example:1389/cn=CA", "http://ca.example/crl") == [
        "ldap://ca.example:1389/cn=CA"
    ]


def test_attack_a_known_name_that_leads_to_a_machine_of_ours():
    runtime = FakeRuntime(records={("ca.example", "A"): ["10.0.0.1"]})
    one = source(runtime, list_servers=["ca.example"])
    one._servers.ask = lambda *arguments, **named: pytest.fail("it is connected to")
    with pytest.raises(Unavailable, match="no public address"):
        runtime.run(one.evidence(EvidenceRequest("crl", b"", urls=("ldap://ca.example/cn=CA",))))


def test_what_is_asked_of_nobody_is_no_failure():
    one = source()
    assert FakeRuntime().run(one.evidence(EvidenceRequest("ocsp", b"", urls=("http://x/",)))) == ()
    assert list(FakeRuntime().run(one.evidence(EvidenceRequest("crl", b"", urls=())))) == []


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"servers": ["ldap.example.org"]}, "write ldap://HOST"),
        ({"servers": ["http://ldap.example.org"]}, "write ldap://HOST"),
        ({"servers": ["ldap://u:p@ldap.example.org"]}, "write ldap://HOST"),
        ({"servers": ["ldap://h/dc=x"]}, "write ldap://HOST"),
        ({"list_servers": ["ldap://h"]}, "HOST or HOST:PORT"),
        ({"filter": "(mail=*)"}, "would find anybody"),
        ({"filter": "(mail={address}"}, "not a filter"),
        ({"filter": "mail={address})(x=*"}, "not a filter"),
        ({"servers": ["ldap://h"], "bind_dn": "cn=x"}, "belong together"),
        ({"servers": ["ldap://h"], "bind_dn": "cn=x", "password_file": "/p", "tls": "none"}, "in clear"),
        ({"recipients": ["example.org"]}, "need servers"),
        ({"lists": True}, "need servers"),
        ({"servers": ["ldap://h"], "recipients": ["example.org"]}, "need a base"),
        ({"timeout": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense(settings, word):
    with pytest.raises(ValidationError, match=word):
        LdapSettings(**settings)


def test_a_password_may_go_in_clear_on_this_machine_only():
    for host in ("127.0.0.1", "[::1]:389", "localhost"):
        assert LdapSettings(servers=[f"ldap://{host}"], bind_dn="cn=x", password_file="/p", tls="none")
    assert LdapSettings(servers=["ldaps://h"], bind_dn="cn=x", password_file="/p", tls="none")


def test_servers():
    assert ServerAddress.of_setting("ldap://LDAP.example.org") == ServerAddress("ldap.example.org", 389)
    assert ServerAddress.of_setting("ldaps://[::1]:1636/") == ServerAddress("::1", 1636, True)
    assert str(ServerAddress("::1", 389)) == "[::1]:389"
