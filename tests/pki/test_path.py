"""`pki.path.validate`: good paths, and one test for each way in which a path may be bad."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from pki_authorities import BACKEND, EMAIL, END, NOW, START, Party, ask, codes, dn, issue, key, usage

from mailsec.algorithms.profiles import PROFILES
from mailsec.model.limits import Limits
from mailsec.model.trust import Anchor
from mailsec.pki import signatures
from mailsec.pki.anchors import AnchorSet
from mailsec.pki.budget import Budget, cost_of
from mailsec.pki.build import CertificatePool
from mailsec.pki.cache import PathCache
from mailsec.pki.path import PathOptions, validate
from mailsec.x509.certificate import Certificate, load_certificate


def test_a_good_path(root, authority, alice):
    result = ask(alice, authority, anchors=[root])
    assert result.valid and result.accepted and result.reasons == ()
    assert [link.subject.text for link in result.chain] == ["CN=Alice", "CN=Authority", "CN=Root"]
    assert [check.role for check in result.checks] == ["end-entity", "authority", "anchor"]
    assert result.anchor.der == root.der and result.valid_until == END and result.missing == ()


def test_an_intermediate_may_itself_be_the_anchor(authority, alice):
    assert ask(alice, anchors=[authority]).valid


def test_a_certificate_that_is_itself_an_anchor(alice):
    result = ask(alice, anchors=[alice])
    assert result.valid and len(result.chain) == 1


def test_a_person_who_is_trusted_is_no_authority_by_that(alice):
    victim = issue("Victim", alice, addresses=("victim@example.org",))
    assert codes(ask(victim, anchors=[alice])) == ["not-an-authority", "key-usage"]
    plain = issue("No extensions", identifiers=False, label="plain")
    assert codes(ask(issue("Victim", plain), anchors=[plain])) == (["not-an-authority"] if plain.certificate.version == 3 else [])


def test_anchor_domains_may_be_written_in_unicode(root):
    anchor = Anchor(root.der, domains=("bücher.example",))
    assert ask(issue("Bob", root, addresses=("bob@xn--bcher-kva.example",)), anchors=[anchor]).valid


def test_no_anchor(authority, alice):
    assert codes(ask(alice, authority, anchors=[])) == ["no-anchor"]


def test_a_strangers_root_is_not_trusted_because_the_message_brings_it(root):
    stranger = issue("Stranger", ca=True)
    mallory = issue("Mallory", stranger, addresses=("alice@example.org",))
    assert codes(ask(mallory, stranger, anchors=[root])) == ["untrusted-root"]


def test_a_root_with_the_name_of_an_anchor_and_another_key(root):
    impostor = issue("Root", ca=True, label="impostor")
    mallory = issue("Mallory", impostor, addresses=("alice@example.org",))
    assert codes(ask(mallory, impostor, anchors=[root])) == ["signature-wrong"]


def test_a_missing_issuer_is_asked_for(root, authority):
    access = x509.AuthorityInformationAccess(
        [x509.AccessDescription(x509.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.example/a.cer"))]
    )
    bob = issue("Bob", authority, access)
    result = ask(bob, anchors=[root])
    assert codes(result) == ["issuer-not-found"]
    assert [(request.kind, request.certificate, request.urls) for request in result.missing] == [
        ("issuer", bob.der, ("http://ca.example/a.cer",))
    ]


def test_a_changed_certificate(root, authority, alice):
    changed = alice.der.replace(b"alice@example.org", b"mallo@example.org")
    assert codes(ask(load_certificate(changed), authority, anchors=[root])) == ["signature-wrong"]


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (START - dt.timedelta(seconds=1), "not-yet-valid"),
        (START, None),
        (END, None),
        (END + dt.timedelta(microseconds=500_000), None),
        (END + dt.timedelta(seconds=1), "expired"),
    ],
)
def test_validity_holds_the_instant(root, authority, alice, at, code):
    assert set(codes(ask(alice, authority, anchors=[root], at=at))) == ({code} if code else set())


def test_an_end_entity_that_issues(root, authority):
    rogue = issue("Rogue", authority, addresses=("rogue@example.org",))
    assert "not-an-authority" in codes(ask(issue("Victim", rogue), rogue, authority, anchors=[root]))


def test_basic_constraints_false_that_issues(root):
    rogue = issue("Rogue", root, usage("key_cert_sign"), ca=False)
    assert codes(ask(issue("Victim", rogue), rogue, anchors=[root])) == ["not-an-authority"]


def test_an_authority_whose_key_may_not_sign_certificates(root):
    authority = issue("No cert sign", root, usage("crl_sign"), ca=True)
    assert codes(ask(issue("Bob", authority), authority, anchors=[root])) == ["key-usage"]


def test_path_length_constraint(root):
    first = issue("First", root, ca=True, path_length=0)
    second = issue("Second", first, ca=True)
    assert ask(issue("Bob", first), first, anchors=[root]).valid
    assert codes(ask(issue("Bob", second), first, second, anchors=[root])) == ["path-too-long"]


def test_what_one_message_brings_lies_over_what_is_kept_and_stays_its_own(root, authority, alice):
    impostor = issue("Authority", ca=True, label="impostor")
    kept = CertificatePool([authority.certificate])
    both = CertificatePool([impostor.certificate, authority.certificate], kept)
    anchors, email = [root.anchor], "email-sign"
    assert validate(alice.certificate, anchors=anchors, intermediates=both, at=NOW, purpose=email, backend=BACKEND).valid
    assert [found.der for found in both.certificates] == [authority.der, impostor.der]
    assert list(both.named(authority.certificate.subject.key)) == [authority.certificate, impostor.certificate]
    assert kept.certificates == (authority.certificate,) == tuple(kept.named(authority.certificate.subject.key))


def test_maximum_depth(root, authority, alice):
    assert ask(alice, authority, anchors=[root], options=PathOptions(max_depth=1)).valid
    assert codes(ask(alice, authority, anchors=[root], options=PathOptions(max_depth=0))) == ["path-too-long"]


@pytest.mark.parametrize(
    ("usages", "purpose", "valid"),
    [
        ([EMAIL], "email-sign", True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], "email-sign", True),
        ([ExtendedKeyUsageOID.SERVER_AUTH], "email-sign", False),
        ([ExtendedKeyUsageOID.SERVER_AUTH], "tls-server", True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], "tls-server", False),
        ([EMAIL], "tls-client", False),
        ([EMAIL], "any", True),
        (None, "email-sign", True),
        (None, "ocsp", False),
        ([ExtendedKeyUsageOID.OCSP_SIGNING], "ocsp", True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], "ocsp", False),
    ],
)
def test_extended_key_usage(root, usages, purpose, valid):
    extensions = [x509.ExtendedKeyUsage(usages)] if usages else []
    result = ask(issue("Bob", root, *extensions), anchors=[root], purpose=purpose)
    assert codes(result) == ([] if valid else ["extended-key-usage"])


def test_an_authority_for_other_purposes(root):
    authority = issue("TLS only", root, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), ca=True)
    assert codes(ask(issue("Bob", authority), authority, anchors=[root])) == ["extended-key-usage"]


@pytest.mark.parametrize(
    ("names", "purpose", "valid"),
    [
        (("digital_signature",), "email-sign", True),
        (("content_commitment",), "email-sign", True),
        (("key_encipherment",), "email-sign", False),
        (("key_agreement",), "email-encrypt", True),
        (("key_encipherment",), "email-encrypt", False),
        (("digital_signature",), "email-encrypt", False),
    ],
)
def test_key_usage(root, names, purpose, valid):
    result = ask(issue("Bob", root, usage(*names)), anchors=[root], purpose=purpose)
    assert codes(result) == ([] if valid else ["key-usage"])


@pytest.mark.parametrize("critical", [True, False])
def test_unknown_critical_extension(root, critical):
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    result = ask(issue("Bob", root, (extension, critical)), anchors=[root])
    assert codes(result) == (["unknown-critical-extension"] if critical else [])


def test_anchor_for_one_domain_vouches_for_no_other(root):
    anchor = Anchor(root.der, domains=("example.org",))
    assert ask(issue("Bob", root, addresses=("bob@example.org", "bob@sub.Example.ORG")), anchors=[anchor]).valid
    # Nor by an address of another domain beside a good one, nor by a domain that only ends alike, nor by no address at all.
    for addresses in [("bob@example.org", "bob@victim.example"), ("bob@notexample.org",), ()]:
        assert set(codes(ask(issue("Bob", root, addresses=addresses), anchors=[anchor]))) == {"anchor-domain"}


def test_anchor_for_tls_vouches_for_no_mail(root):
    anchor = Anchor(root.der, purposes=("tls-server",))
    assert codes(ask(issue("Bob", root), anchors=[anchor])) == ["anchor-purpose"]


def test_anchor_that_lost_its_trust(root):
    bob = issue("Bob", root, start=START + dt.timedelta(days=30))
    assert ask(bob, anchors=[Anchor(root.der, not_after=START + dt.timedelta(days=31))]).valid
    assert codes(ask(bob, anchors=[Anchor(root.der, not_after=START)])) == ["anchor-distrusted-after"]


def test_distrusted_certificate_in_the_chain(root, authority, alice):
    options = PathOptions(distrusted={authority.certificate.fingerprint})
    assert codes(ask(alice, authority, anchors=[root], options=options)) == ["distrusted"]


def test_weak_keys_and_digests(root):
    weak = issue("Weak", root, public_key=rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key())
    assert codes(ask(weak, anchors=[root])) == ["weak-key"]
    assert ask(weak, anchors=[root], options=PathOptions(profile=PROFILES["legacy"])).valid


def resigned(party: Party, signer: str | None, *, exponent: int = 0, modulus: int = 0, padded: int = 0) -> Certificate:
    """The certificate with another RSA key in it, signed again; `padded`: its signature is the padded digest itself, of so many octets."""
    from asn1crypto import keys as asn1_keys
    from asn1crypto import x509 as asn1_x509

    certificate = asn1_x509.Certificate.load(party.der)
    if exponent:
        numbers = asn1_keys.RSAPublicKey({"modulus": modulus, "public_exponent": exponent})
        certificate["tbs_certificate"]["subject_public_key_info"] = {"algorithm": {"algorithm": "rsa"}, "public_key": numbers}
    if padded:
        for place in (certificate["tbs_certificate"]["signature"], certificate["signature_algorithm"]):
            place["algorithm"], place["parameters"] = "sha256_rsa", None
    tbs = certificate["tbs_certificate"].dump(force=True)
    if padded:
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(tbs).digest()
        certificate["signature_value"] = b"\0\1" + b"\xff" * (padded - 3 - len(digest)) + b"\0" + digest
    else:
        certificate["signature_value"] = key(signer).sign(tbs, ec.ECDSA(hashes.SHA256()))
    return load_certificate(certificate.dump(force=True))


def test_forgery_with_exponent_one_every_signature_is_right(root):
    modulus = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key().public_numbers().n
    plain = issue("Exponent", root, ca=True)
    authority = resigned(plain, root.label, exponent=1, modulus=modulus)
    mallory = resigned(issue("Mallory", plain, addresses=("mallory@example.org",)), None, padded=256)
    result = validate(mallory, anchors=[root.anchor], intermediates=[authority], at=NOW, purpose="email-sign", backend=BACKEND)
    assert not result.accepted
    assert "weak-key" in codes(ask(authority, anchors=[root], purpose="any")), "the key is named, not the signature"


@pytest.mark.parametrize("what", ["small factor", "close primes", "even exponent"])
def test_weak_families_of_keys_are_refused_in_a_path(root, what):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_numbers()
    modulus = {"small factor": 3 * private.p * private.q, "close primes": private.p * (private.p + 2)}.get(what, private.p * private.q)
    weak = resigned(issue("Weak", root, ca=True), root.label, exponent=65536 if what == "even exponent" else 65537, modulus=modulus)
    assert codes(ask(weak, anchors=[root], purpose="any")) == ["weak-key"]


def test_cross_certified_authorities_in_a_circle_end(root):
    first = issue("First", root, ca=True)
    around = [
        issue("Second", first, ca=True),
        issue("First", issue("Second", first, ca=True), ca=True, label=first.label),
    ]
    lone = issue("Bob", around[0])
    budget = Budget()
    assert not ask(lone, *around, anchors=[issue("Elsewhere", ca=True)], budget=budget).valid
    assert budget.limits.path_candidates - budget.candidates == 2
    assert ask(lone, *around, first, anchors=[root]).valid


def test_the_other_way_round_a_bad_cross_certificate(root):
    """An expired cross certificate is passed over where the authority has a good one (RFC 4158)."""
    new_root = issue("New root", ca=True)
    expired = issue("Authority X", root, ca=True, end=START + dt.timedelta(days=1))
    good = issue("Authority X", new_root, ca=True)
    for order in ([expired, good], [good, expired]):
        assert ask(issue("Bob", good), *order, anchors=[root, new_root]).valid


def test_wrong_key_identifiers_do_not_hide_a_path(root):
    bob = issue("Bob", root, x509.AuthorityKeyIdentifier(b"wrong", None, None), identifiers=False)
    assert ask(bob, anchors=[root]).valid


def test_a_path_longer_than_the_limit(root):
    chain = [root]
    for index in range(12):
        chain.append(issue(f"Level {index}", chain[-1], ca=True))
    assert codes(ask(issue("Bob", chain[-1]), *chain[1:], anchors=[root])) == ["path-length"]
    assert ask(issue("Bob", chain[8]), *chain[1:], anchors=[root]).valid


def test_a_bag_of_namesakes_spends_the_budget_and_no_more(root):
    namesakes = [issue("CA", None, ca=True, label=f"namesake {index}") for index in range(30)]
    bob = issue("Bob", issue("CA", root, ca=True, label="the right one"))
    budget = Budget(Limits(signature_checks=10))
    assert codes(ask(bob, *namesakes, anchors=[root], budget=budget)) == ["signature-checks"]
    assert len(budget.checked) == 10
    assert codes(ask(bob, *namesakes, anchors=[root], budget=Budget(Limits(path_candidates=5)))) == ["path-candidates"]


def test_costly_keys_count_as_several_checks():
    assert [cost_of("rsa", bits) for bits in (1024, 2048, 4096, 8192, 16384)] == [1, 1, 1, 4, 16]
    assert cost_of("ec:secp256r1", 256) == 1 and cost_of("ec:brainpoolP512r1", 512) == 3


def test_a_signature_is_checked_once_for_a_message(root, authority, alice):
    budget = Budget()
    ask(alice, authority, anchors=[root], budget=budget)
    spent = budget.signature_checks
    ask(alice, authority, anchors=[root], budget=budget)
    assert budget.signature_checks == spent


def test_a_finished_path_is_kept_until_it_ends(root, authority, alice):
    cache, anchors = PathCache(), AnchorSet([root.anchor])
    asked = {"intermediates": [authority.certificate], "purpose": "email-sign", "backend": BACKEND, "cache": cache}
    first = validate(alice.certificate, anchors=anchors, at=NOW, **asked)
    assert first.valid and len(cache) == 1
    # The same object, though nothing helps to build the path any more.
    assert validate(alice.certificate, anchors=anchors, at=NOW + dt.timedelta(days=1), **asked | {"intermediates": []}) is first
    # Not before it was found, not after its first certificate ends, not for another purpose, other anchors or other options.
    for at, more in [
        (NOW - dt.timedelta(days=1), {}),
        (END + dt.timedelta(days=1), {}),
        (NOW, {"purpose": "tls-client"}),
        (NOW, {"anchors": AnchorSet([root.anchor])}),
        (NOW, {"options": PathOptions(distrusted={authority.certificate.fingerprint})}),
    ]:
        assert validate(alice.certificate, at=at, **{"anchors": anchors} | asked | more) is not first


def test_refusals_are_not_kept(root, authority, alice):
    cache, anchors = PathCache(), AnchorSet([root.anchor])
    asked = {"anchors": anchors, "at": NOW, "purpose": "email-sign", "backend": BACKEND, "cache": cache}
    assert not validate(alice.certificate, intermediates=[], **asked).valid
    assert validate(alice.certificate, intermediates=[authority.certificate], **asked).valid


def test_the_memory_of_paths_is_bounded(root):
    cache, anchors = PathCache(2), AnchorSet([root.anchor])
    for index in range(3):
        party = issue(f"Bob {index}", root)
        validate(party.certificate, anchors=anchors, intermediates=(), at=NOW, purpose="email-sign", backend=BACKEND, cache=cache)
    assert len(cache) == 2


def test_mapping_of_any_policy_is_refused(root):
    mapping = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.33"), bytes.fromhex("300d300b0604551d200006032a0304"))
    authority = issue("Mapper", root, mapping, ca=True)
    assert codes(ask(issue("Bob", authority), authority, anchors=[root])) == ["policy-mapping"]


def test_exponential_policies_cost_linear_time(root):
    """CVE-2023-0464: 2^n nodes in the tree of RFC 5280; in the graph of RFC 9618, two a level."""
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(f"1.2.3.{index}"), None) for index in range(60)])
    pairs = b"".join(bytes([0x30, 10, 6, 3, 0x2A, 3, left, 6, 3, 0x2A, 3, right]) for left in range(60) for right in range(60))
    mapping = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.33"), b"\x30\x82" + len(pairs).to_bytes(2, "big") + pairs)
    chain = [root]
    for index in range(8):
        chain.append(issue(f"Level {index}", chain[-1], policies, mapping, ca=True))
    result = ask(issue("Bob", chain[-1], policies), *chain[1:], anchors=[root], options=PathOptions(explicit_policy=True))
    assert "policy-missing" not in codes(result)


def test_an_unreadable_certificate_is_refused_with_its_reason(root):
    result = ask(load_certificate(b"\x30\x03\x02\x01\x01"), anchors=[root])
    assert not result.valid and codes(result) == ["certificate-unreadable"]


def test_sha1_issuers_are_refused_by_default(root):
    algorithm = bytes.fromhex("300906072a8648ce3d0401")
    reason = signatures.algorithm_reason(algorithm, root.certificate.key, "x")
    assert reason.code == "weak-digest"
    assert signatures.algorithm_reason(algorithm, root.certificate.key, "x", PROFILES["legacy"]) is None


def test_every_reason_can_be_acted_on(root):
    expired = issue("Old", root, end=START + dt.timedelta(days=1))
    for reason in ask(expired, anchors=[root], at=NOW).reasons:
        assert reason.code == "expired" and reason.rfc.startswith("RFC 5280") and reason.hint
        assert not reason.message.endswith(".")


def test_names_in_reasons_are_printable(root):
    evil = issue(dn("\x1b[31mEvil\r\nSubject: x\u202e"), root, end=START + dt.timedelta(days=1))
    assert all(reason.message.isprintable() for reason in ask(evil, anchors=[root]).reasons)


def test_hash_algorithm_of_the_issuer(root):
    assert ask(issue("Bob", root, hash_algorithm=hashes.SHA384()), anchors=[root]).valid
    assert key("CN=Root") is key("CN=Root")
