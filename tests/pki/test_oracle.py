"""Generated chains, judged by us and by `openssl verify`: the two agree, and where they may differ it is listed.

Not generated, because OpenSSL has its own view: anyExtendedKeyUsage for S/MIME, anchors that are not self-signed, names that cannot be read.
"""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pki_authorities import EMAIL, NOW, START, Party, ask, codes, issue, usage

CA_USAGE = st.sampled_from([None, ("key_cert_sign",), ("key_cert_sign", "crl_sign"), ("crl_sign",), ("digital_signature",)])
END_USAGE = st.sampled_from([None, ("digital_signature",), ("content_commitment",), ("key_encipherment",), ("key_cert_sign",)])
PURPOSES = st.sampled_from([None, None, [EMAIL], [ExtendedKeyUsageOID.SERVER_AUTH], [EMAIL, ExtendedKeyUsageOID.SERVER_AUTH]])
NAMES = ["example.org", "sub.example.org", "example.com"]
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

rarely = st.sampled_from([False] * 9 + [True])


@st.composite
def authorities(draw):
    return {
        "ca": draw(st.sampled_from([True] * 8 + [False, None])),
        "path_length": draw(st.sampled_from([None, None, None, 0, 1, 2])),
        "usage": draw(CA_USAGE) if draw(rarely) else draw(st.sampled_from([None, ("key_cert_sign",)])),
        "purposes": draw(PURPOSES) if draw(rarely) else None,
        "expired": draw(rarely) and draw(rarely),
        "self_issued": draw(rarely),
        "constraints": draw(st.sampled_from([None] * 6 + [("permitted", name) for name in NAMES] + [("excluded", name) for name in NAMES])),
        "unknown": draw(st.sampled_from([None] * 12 + [False, True])),
        "other_key": draw(rarely) and draw(rarely),
    }


@st.composite
def ends(draw):
    return {
        "usage": draw(END_USAGE),
        "purposes": draw(PURPOSES),
        "expired": draw(rarely),
        "address": draw(st.sampled_from([None, *[f"bob@{name}" for name in NAMES]])),
        "unknown": draw(st.sampled_from([None] * 8 + [False, True])),
        "ca": draw(st.sampled_from([None, False, True])),
    }


def extensions_of(spec) -> list:
    found = []
    if spec["usage"] is not None:
        found.append((usage(*spec["usage"]), True))
    if spec["purposes"] is not None:
        found.append(x509.ExtendedKeyUsage(spec["purposes"]))
    if spec["unknown"] is not None:
        found.append((UNKNOWN, spec["unknown"]))
    if spec.get("constraints"):
        kind, name = spec["constraints"]
        found.append((x509.NameConstraints(**{f"{kind}_subtrees": [x509.RFC822Name(name)], **_other(kind)}), True))
    return found


def _other(kind: str) -> dict:
    return {"excluded_subtrees" if kind == "permitted" else "permitted_subtrees": None}


def build(levels, end, name: str = "Oracle") -> list[Party]:
    """`name`: begins all subjects and keys, so that chains of several can lie in one database."""
    chain = [issue(f"{name} root", ca=True, label=f"{name} 0")]
    for index, spec in enumerate(levels, 1):
        above = chain[-1]
        ca = spec["ca"]
        chain.append(
            issue(
                above.subject if spec["self_issued"] else f"{name} {index}",
                above,
                *extensions_of(spec),
                ca=ca,
                path_length=spec["path_length"] if ca else None,
                label=f"{name} {index}",
                end=START + dt.timedelta(days=1) if spec["expired"] else NOW + dt.timedelta(days=99),
                sign_with="oracle mallory" if spec["other_key"] else None,
            )
        )
    addresses = (end["address"],) if end["address"] else ()
    last = START + dt.timedelta(days=1) if end["expired"] else NOW + dt.timedelta(days=99)
    chain.append(issue(f"{name} Bob", chain[-1], *extensions_of(end), ca=end["ca"], addresses=addresses, end=last))
    return chain


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(authorities(), max_size=3), ends())
def test_openssl_agrees(need, tmp_path_factory, levels, end):
    agree(need("openssl"), tmp_path_factory.getbasetemp(), build(levels, end))


def agree(openssl: str, folder: Path, chain: list[Party]) -> bool:
    """Ask both, compare, and return what they say."""
    paths = []
    for name, parties in (("root", chain[:1]), ("between", chain[1:-1]), ("end", chain[-1:])):
        paths.append(folder / f"oracle-{name}.pem")
        paths[-1].write_bytes(b"".join(party.parsed.public_bytes(Encoding.PEM) for party in parties))
    between = ["-untrusted", paths[1]] if len(chain) > 2 else []
    done = subprocess.run(
        [openssl, "verify", "-purpose", "smimesign", "-attime", str(int(NOW.timestamp())), "-CAfile", paths[0], *between, paths[2]],
        capture_output=True,
        text=True,
    )
    theirs = done.returncode == 0
    ours = ask(chain[-1], *chain[1:-1], anchors=[chain[0]])
    assert ours.valid is theirs, (codes(ours), done.stderr)
    return theirs


@pytest.mark.parametrize("count", [0, 1, 3])
def test_good_chains_are_good_for_both(need, tmp_path_factory, count):
    spec = {"ca": True, "path_length": None, "usage": ("key_cert_sign",), "purposes": None, "expired": False, "self_issued": False}
    spec |= {"constraints": None, "unknown": None, "other_key": False}
    end = {
        "usage": ("digital_signature",),
        "purposes": [EMAIL],
        "expired": False,
        "address": "bob@example.org",
        "unknown": None,
        "ca": None,
    }
    assert agree(need("openssl"), tmp_path_factory.getbasetemp(), build([spec] * count, end))
