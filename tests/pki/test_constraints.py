"""Name constraints: for each kind of name, what is within and what is outside."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from pki_authorities import ask, codes, dn, issue


def other_name(address: str) -> x509.OtherName:
    octets = address.encode()
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), b"\x0c" + bytes([len(octets)]) + octets)


def mail(text: str) -> x509.RFC822Name:
    return x509.RFC822Name(text)


def host(text: str) -> x509.DNSName:
    return x509.DNSName(text)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def address(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text))


def person(organisation: str, name: str = "Bob") -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, name)])


def organisation(name: str) -> x509.DirectoryName:
    return x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]))


WITHIN = [
    (mail("example.org"), mail("bob@example.org"), True),
    (mail("example.org"), mail("bob@EXAMPLE.org"), True),
    (mail("example.org"), mail("bob@sub.example.org"), False),
    (mail(".example.org"), mail("bob@sub.example.org"), True),
    (mail(".example.org"), mail("bob@example.org"), False),
    (mail("bob@example.org"), mail("bob@example.org"), True),
    (mail("bob@example.org"), mail("eve@example.org"), False),
    (mail("example.org"), mail("bob@notexample.org"), False),
    (mail("example.org"), other_name("боб@example.org"), True),
    (mail("example.org"), other_name("боб@victim.example"), False),
    (mail("боб@example.org".encode("ascii", "ignore").decode() or "x@example.org"), other_name("боб@example.org"), False),
    (host("example.org"), host("example.org"), True),
    (host("example.org"), host("www.example.org"), True),
    (host("example.org"), host("notexample.org"), False),
    (host("example.org"), host("example.org.evil.example"), False),
    (uri("example.org"), uri("https://example.org/x"), True),
    (uri("example.org"), uri("https://www.example.org/"), False),
    (uri(".example.org"), uri("https://user@www.example.org:8443/?q=@evil.example"), True),
    (uri("example.org"), uri("https://example.org@evil.example/"), False),
    (uri("example.org"), uri("urn:example.org"), False),
    (uri("example.org"), uri("https://192.0.2.1/"), False),
    (address("192.0.2.0/24"), address("192.0.2.7"), True),
    (address("192.0.2.0/24"), address("192.0.3.7"), False),
    (address("2001:db8::/32"), address("2001:db8::1"), True),
    (address("0.0.0.0/0"), address("2001:db8::1"), False),
]


def constrained(root, permitted=None, excluded=None):
    return issue("Constrained", root, (x509.NameConstraints(permitted, excluded), True), ca=True)


@pytest.mark.parametrize(("base", "name", "within"), WITHIN, ids=lambda value: str(getattr(value, "value", value)))
def test_permitted(root, base, name, within):
    authority = constrained(root, permitted=[base])
    bob = issue("Bob", authority, x509.SubjectAlternativeName([name]))
    assert codes(ask(bob, authority, anchors=[root])) == ([] if within else ["name-not-permitted"])


READABLE = [row for row in WITHIN if "urn:" not in str(row[1].value) and "192.0.2.1/" not in str(row[1].value)]


@pytest.mark.parametrize(("base", "name", "within"), READABLE, ids=lambda value: str(getattr(value, "value", value)))
def test_excluded(root, base, name, within):
    authority = constrained(root, excluded=[base])
    bob = issue("Bob", authority, x509.SubjectAlternativeName([name]))
    assert codes(ask(bob, authority, anchors=[root])) == (["name-not-permitted"] if within else [])


@pytest.mark.parametrize("name", [uri("urn:isbn:1"), mail("nobody"), host("a..example.org")], ids=str)
def test_what_cannot_be_read_is_outside_and_excluded(root, name):
    base = {uri: uri("example.org"), mail: mail("example.org"), host: host("example.org")}[
        {x509.UniformResourceIdentifier: uri, x509.RFC822Name: mail, x509.DNSName: host}[type(name)]
    ]
    for authority in (constrained(root, permitted=[base]), constrained(root, excluded=[base])):
        bob = issue("Bob", authority, x509.SubjectAlternativeName([name]))
        assert codes(ask(bob, authority, anchors=[root])) == ["name-not-permitted"]


def test_directory_names(root):
    authority = constrained(root, permitted=[organisation("Good")])
    assert ask(issue(person("good"), authority, label="p"), authority, anchors=[root]).valid
    assert codes(ask(issue(person("Evil"), authority, label="p"), authority, anchors=[root])) == ["name-not-permitted"]
    hidden = issue(person("Good"), authority, x509.SubjectAlternativeName([x509.DirectoryName(person("Evil"))]), label="p")
    assert codes(ask(hidden, authority, anchors=[root])) == ["name-not-permitted"]
    excluding = constrained(root, excluded=[organisation("Evil")])
    assert ask(issue(person("Good"), excluding, label="p"), excluding, anchors=[root]).valid
    assert not ask(issue(person("EVIL "), excluding, label="p"), excluding, anchors=[root]).valid


def test_a_kind_that_is_not_constrained_is_free(root):
    authority = constrained(root, permitted=[mail("example.org")])
    assert ask(issue("Bob", authority, x509.SubjectAlternativeName([host("anything.example")])), authority, anchors=[root]).valid


def test_two_authorities_permit_what_both_permit(root):
    first = issue("First", root, (x509.NameConstraints([mail(".example.org"), mail("example.org")], None), True), ca=True)
    second = issue("Second", first, (x509.NameConstraints([mail("sub.example.org"), mail("victim.example")], None), True), ca=True)
    for text, valid in [("bob@sub.example.org", True), ("bob@example.org", False), ("bob@victim.example", False)]:
        assert ask(issue("Bob", second, addresses=(text,)), first, second, anchors=[root]).valid is valid


def test_email_address_in_the_subject_is_constrained_too(root):
    authority = constrained(root, permitted=[mail("example.org")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Bob"), x509.NameAttribute(NameOID.EMAIL_ADDRESS, "bob@victim.example")])
    assert codes(ask(issue(name, authority, label="p"), authority, anchors=[root])) == ["name-not-permitted"]
    beside = issue(name, authority, addresses=("bob@example.org",), label="p")
    assert codes(ask(beside, authority, anchors=[root])) == ["name-not-permitted"]


def test_a_wildcard_may_not_stand_for_an_excluded_host(root):
    authority = constrained(root, excluded=[host("www.example.org")])
    assert not ask(issue("Bob", authority, x509.SubjectAlternativeName([host("*.example.org")])), authority, anchors=[root]).valid
    assert ask(issue("Bob", authority, x509.SubjectAlternativeName([host("*.example.com")])), authority, anchors=[root]).valid


def test_a_kind_that_cannot_be_compared_refuses_its_names(root):
    registered = x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))
    for authority in (constrained(root, permitted=[registered]), constrained(root, excluded=[registered])):
        assert not ask(issue("Bob", authority, x509.SubjectAlternativeName([registered])), authority, anchors=[root]).valid
        assert ask(issue("Bob", authority), authority, anchors=[root]).valid


def test_self_issued_authorities_are_exempt_and_ends_are_not(root):
    authority = constrained(root, permitted=[organisation("Good")])
    again = issue(dn("Constrained"), authority, ca=True, label="again")
    good = issue(person("Good"), again, label="p")
    assert ask(good, authority, again, anchors=[root]).valid
    assert not ask(issue(dn("Constrained"), authority, label="end"), authority, anchors=[root]).valid


def test_constraints_of_an_anchor_hold():
    anchor = issue("Anchor", None, (x509.NameConstraints([mail("example.org")], None), True), ca=True)
    assert ask(issue("Bob", anchor, addresses=("bob@example.org",)), anchors=[anchor]).valid
    assert not ask(issue("Bob", anchor, addresses=("bob@victim.example",)), anchors=[anchor]).valid


def test_a_million_comparisons_are_refused(root):
    authority = constrained(root, permitted=[host(f"h{index}.example") for index in range(1200)])
    bob = issue("Bob", authority, x509.SubjectAlternativeName([host(f"h{index}.example") for index in range(1000)]))
    assert codes(ask(bob, authority, anchors=[root])) == ["name-checks"]
