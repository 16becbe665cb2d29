"""Chosen chains, judged by us and by NSS (`certutil -V -u S`: for signing e-mail)."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from pki_authorities import EMAIL, NOW, START, Party, ask, codes, issue, usage

MAIL = x509.ExtendedKeyUsage([EMAIL])
TLS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


SIGNER = (MAIL, usage("digital_signature"))


def constraint(name: str) -> tuple[x509.NameConstraints, bool]:
    return x509.NameConstraints([x509.RFC822Name(name)], None), True


def chains(root: Party) -> dict[str, list[Party]]:
    def two(*extensions, end=SIGNER, **more) -> list[Party]:
        authority = issue("NSS Authority", root, usage("key_cert_sign"), *extensions, **{"ca": True} | more)
        return [authority, issue("NSS Bob", authority, *end, addresses=("bob@example.org",))]

    old = START + dt.timedelta(days=1)
    outer = issue("NSS Outer", root, ca=True, path_length=0)
    inner = issue("NSS Inner", outer, ca=True)
    return {
        "good": two(),
        "content commitment": two(end=(MAIL, usage("content_commitment"))),
        "expired authority": [a := issue("NSS Old", root, ca=True, end=old), issue("NSS Bob", a)],
        "expired": [a := issue("NSS Authority", root, ca=True), issue("NSS Bob", a, MAIL, addresses=("bob@example.org",), end=old)],
        "for TLS only": two(end=(TLS,)),
        "authority for TLS only": two(TLS),
        "key for encryption only": two(end=(usage("key_encipherment"),)),
        "no authority": two(ca=False),
        "path too long": [outer, inner, issue("NSS Bob", inner, MAIL, addresses=("bob@example.org",))],
        "permitted name": two(constraint("example.org")),
        "name not permitted": two(constraint("example.com")),
        "signed by somebody else": [
            a := issue("NSS Authority", root, ca=True),
            issue("NSS Bob", a, MAIL, addresses=("bob@example.org",), sign_with="mallory"),
        ],
        "unknown critical extension": two(end=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),)),
    }


@pytest.fixture(scope="module")
def verdicts(need, tmp_path_factory) -> dict[str, tuple[bool, bool, list[str], str]]:
    certutil = need("certutil", "libnss3-tools")
    root = issue("NSS Root", ca=True)
    found = {}
    for name, chain in chains(root).items():
        folder = tmp_path_factory.mktemp("nss")

        def run(*arguments: str | Path, folder: Path = folder) -> subprocess.CompletedProcess[str]:
            return subprocess.run([certutil, "-d", f"sql:{folder}", *arguments], capture_output=True, text=True)

        run("-N", "--empty-password")
        for index, party in enumerate([root, *chain]):
            (folder / f"{index}.der").write_bytes(party.der)
            run("-A", "-n", f"nick{index}", "-t", ",C," if not index else ",,", "-i", folder / f"{index}.der")
        done = run("-V", "-n", f"nick{len(chain)}", "-u", "S", "-b", f"{NOW:%y%m%d%H%M%S}Z", "-e")
        ours = ask(chain[-1], *chain[:-1], anchors=[root])
        found[name] = (ours.valid, done.returncode == 0, codes(ours), done.stdout + done.stderr)
    return found


def test_nss_agrees(verdicts):
    differing = {name: row for name, row in verdicts.items() if row[0] is not row[1]}
    assert differing == {}
    assert {name for name, row in verdicts.items() if row[0]} == {"good", "content commitment", "permitted name"}
