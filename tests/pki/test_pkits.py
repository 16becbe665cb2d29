"""NIST PKITS 1.0.1, all of it: every end entity of the suite with the whole pool of certificates and lists on hand, and the policy inputs
of the PKITS document where the file name does not tell the verdict.

PKITS has no address in its certificates: the purpose is "any". DSA with SHA-1 (4.1.4, 4.1.5) is legacy, so the legacy profile runs it; the
default profile refuses those two, which is the one deviation.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from functools import cache
from pathlib import Path

import pytest
from pki_authorities import BACKEND

from mailsec.algorithms.profiles import PROFILES
from mailsec.model.trust import Anchor
from mailsec.pki.anchors import AnchorSet
from mailsec.pki.build import CertificatePool
from mailsec.pki.evidence import RevocationEvidence
from mailsec.pki.path import PathOptions, PathResult, validate
from mailsec.x509.certificate import load_certificate

cryptography_vectors = pytest.importorskip("cryptography_vectors")
DATA = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
AT = dt.datetime(2022, 5, 1, tzinfo=dt.UTC)
ENDS = sorted(path.stem for path in (DATA / "certs").glob("*EE.crt"))
NAMED = [name for name in ENDS if name.startswith(("Valid", "Invalid"))]
P = "2.16.840.1.101.3.2.1.48."


@cache
def pool() -> CertificatePool:
    return CertificatePool(load_certificate(path.read_bytes()) for path in sorted((DATA / "certs").glob("*.crt")))


@cache
def evidence() -> RevocationEvidence:
    return RevocationEvidence(path.read_bytes() for path in sorted((DATA / "crls").glob("*.crl")))


@cache
def anchors() -> AnchorSet:
    return AnchorSet([Anchor((DATA / "certs" / "TrustAnchorRootCertificate.crt").read_bytes())])


def judge(name: str, profile: str = "legacy", **inputs) -> PathResult:
    return validate(
        load_certificate((DATA / "certs" / f"{name}.crt").read_bytes()),
        anchors=anchors(),
        intermediates=pool(),
        at=AT,
        purpose="any",
        backend=BACKEND,
        options=PathOptions(profile=PROFILES[profile], check_revocation=True, **inputs),
        evidence=evidence(),
    )


# PKITS cases whose verdict depends on the inputs, or whose file name does not tell it: section, end entity, policies asked for,
# initial-explicit-policy, initial-policy-mapping-inhibit, initial-inhibit-any-policy, verdict.
POLICY_TABLE = [
    ("4.8.1", "ValidCertificatePathTest1EE", (), 1, 0, 0, True),
    ("4.8.1", "ValidCertificatePathTest1EE", (1,), 1, 0, 0, True),
    ("4.8.1", "ValidCertificatePathTest1EE", (2,), 1, 0, 0, False),
    ("4.8.1", "ValidCertificatePathTest1EE", (1, 2), 1, 0, 0, True),
    ("4.8.2", "AllCertificatesNoPoliciesTest2EE", (), 0, 0, 0, True),
    ("4.8.2", "AllCertificatesNoPoliciesTest2EE", (), 1, 0, 0, False),
    ("4.8.3", "DifferentPoliciesTest3EE", (), 0, 0, 0, True),
    ("4.8.3", "DifferentPoliciesTest3EE", (), 1, 0, 0, False),
    ("4.8.3", "DifferentPoliciesTest3EE", (1, 2), 1, 0, 0, False),
    ("4.8.4", "DifferentPoliciesTest4EE", (), 0, 0, 0, False),
    ("4.8.5", "DifferentPoliciesTest5EE", (), 0, 0, 0, False),
    ("4.8.6", "OverlappingPoliciesTest6EE", (), 0, 0, 0, True),
    ("4.8.6", "OverlappingPoliciesTest6EE", (1,), 0, 0, 0, True),
    ("4.8.6", "OverlappingPoliciesTest6EE", (2,), 0, 0, 0, False),
    ("4.8.7", "DifferentPoliciesTest7EE", (), 0, 0, 0, False),
    ("4.8.8", "DifferentPoliciesTest8EE", (), 0, 0, 0, False),
    ("4.8.9", "DifferentPoliciesTest9EE", (), 0, 0, 0, False),
    ("4.8.10", "AllCertificatesSamePoliciesTest10EE", (), 0, 0, 0, True),
    ("4.8.10", "AllCertificatesSamePoliciesTest10EE", (1,), 0, 0, 0, True),
    ("4.8.10", "AllCertificatesSamePoliciesTest10EE", (2,), 0, 0, 0, True),
    ("4.8.11", "AllCertificatesanyPolicyTest11EE", (), 0, 0, 0, True),
    ("4.8.11", "AllCertificatesanyPolicyTest11EE", (1,), 0, 0, 0, True),
    ("4.8.12", "DifferentPoliciesTest12EE", (), 0, 0, 0, False),
    ("4.8.13", "AllCertificatesSamePoliciesTest13EE", (1,), 0, 0, 0, True),
    ("4.8.13", "AllCertificatesSamePoliciesTest13EE", (2,), 0, 0, 0, True),
    ("4.8.13", "AllCertificatesSamePoliciesTest13EE", (3,), 0, 0, 0, True),
    ("4.8.14", "AnyPolicyTest14EE", (1,), 0, 0, 0, True),
    ("4.8.14", "AnyPolicyTest14EE", (2,), 0, 0, 0, False),
    ("4.8.15", "UserNoticeQualifierTest15EE", (), 0, 0, 0, True),
    ("4.8.16", "UserNoticeQualifierTest16EE", (), 0, 0, 0, True),
    ("4.8.17", "UserNoticeQualifierTest17EE", (), 0, 0, 0, True),
    ("4.8.18", "UserNoticeQualifierTest18EE", (1,), 0, 0, 0, True),
    ("4.8.18", "UserNoticeQualifierTest18EE", (2,), 0, 0, 0, True),
    ("4.8.19", "UserNoticeQualifierTest19EE", (), 0, 0, 0, True),
    ("4.8.20", "CPSPointerQualifierTest20EE", (), 1, 0, 0, True),
    ("4.10.1", "ValidPolicyMappingTest1EE", (1,), 0, 0, 0, True),
    ("4.10.1", "ValidPolicyMappingTest1EE", (2,), 0, 0, 0, False),
    ("4.10.1", "ValidPolicyMappingTest1EE", (), 0, 1, 0, False),
    ("4.10.2", "InvalidPolicyMappingTest2EE", (), 0, 1, 0, False),
    ("4.10.3", "ValidPolicyMappingTest3EE", (1,), 0, 0, 0, False),
    ("4.10.3", "ValidPolicyMappingTest3EE", (2,), 0, 0, 0, True),
    ("4.10.5", "ValidPolicyMappingTest5EE", (1,), 0, 0, 0, True),
    ("4.10.5", "ValidPolicyMappingTest5EE", (6,), 0, 0, 0, False),
    ("4.10.6", "ValidPolicyMappingTest6EE", (1,), 0, 0, 0, True),
    ("4.10.6", "ValidPolicyMappingTest6EE", (6,), 0, 0, 0, False),
    ("4.10.12", "ValidPolicyMappingTest12EE", (1,), 0, 0, 0, True),
    ("4.10.12", "ValidPolicyMappingTest12EE", (2,), 0, 0, 0, True),
    ("4.12.3", "inhibitAnyPolicyTest3EE", (), 0, 0, 0, True),
    ("4.12.3", "inhibitAnyPolicyTest3EE", (), 0, 0, 1, False),
]


def test_the_suite_is_whole():
    assert len(NAMED) == 203
    assert set(ENDS) - set(NAMED) <= {row[1] for row in POLICY_TABLE}


@pytest.mark.parametrize("name", NAMED)
def test_the_verdict_of_the_file_name(name):
    result = judge(name)
    assert result.accepted is name.startswith("Valid"), [reason.message for reason in result.reasons]
    if not result.accepted:
        assert all(reason.message and reason.code for reason in result.reasons) and result.reasons


@pytest.mark.parametrize(("section", "name", "policies", "explicit", "inhibit_mapping", "inhibit_any", "verdict"), POLICY_TABLE)
def test_the_verdict_of_the_policy_table(section, name, policies, explicit, inhibit_mapping, inhibit_any, verdict):
    inputs = {"explicit_policy": bool(explicit), "inhibit_mapping": bool(inhibit_mapping), "inhibit_any_policy": bool(inhibit_any)}
    if policies:
        inputs["policies"] = frozenset(f"{P}{number}" for number in policies)
    result = judge(name, **inputs)
    assert result.accepted is verdict, [reason.message for reason in result.reasons]


def test_the_default_profile_differs_in_dsa_with_sha1_alone():
    differing = [name for name in NAMED if judge(name, "default").accepted is not name.startswith("Valid")]
    assert differing == ["ValidDSAParameterInheritanceTest5EE", "ValidDSASignaturesTest4EE"]


def test_each_case_with_only_its_own_evidence(vectors):
    """The rows of the suite beside the checkout, each with just the certificates and lists that it names."""
    folder = vectors / "pkits"
    if not (folder / "expected.json").is_file():
        pytest.skip("no pkits/expected.json")
    wrong = []
    for row in json.loads((folder / "expected.json").read_text()):
        inputs = row["params"]
        options = PathOptions(
            policies=frozenset(inputs.get("user_initial_policy_set") or ["2.5.29.32.0"]),
            explicit_policy=inputs.get("initial_explicit_policy", False),
            inhibit_mapping=inputs.get("initial_policy_mapping_inhibit", False),
            inhibit_any_policy=inputs.get("initial_any_policy_inhibit", False),
            profile=PROFILES["legacy"],
            check_revocation=row["revocation"],
        )
        result = validate(
            load_certificate((folder / row["cert"]).read_bytes()),
            anchors=[Anchor((folder / row["anchor"]).read_bytes())],
            intermediates=[load_certificate((folder / name).read_bytes()) for name in row["intermediates"]],
            at=dt.datetime.fromisoformat(row["at"]),
            purpose="any",
            backend=BACKEND,
            options=options,
            evidence=RevocationEvidence((folder / name).read_bytes() for name in row["crls"]),
        )
        if result.accepted is not row["valid"]:
            wrong.append((row["id"], [reason.message for reason in result.reasons]))
    assert not wrong


def test_reasons_name_their_section():
    sections = {reason.rfc for name in NAMED for reason in judge(name).reasons if reason.stage in ("path", "revocation")}
    assert all(re.match(r"RFC \d+ §", section) for section in sections)
