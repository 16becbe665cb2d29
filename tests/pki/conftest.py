"""Makes `pki_authorities` importable for the tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cryptography import x509
from pki_authorities import EMAIL, Party, issue, usage


@pytest.fixture(scope="session")
def root() -> Party:
    return issue("Root", ca=True)


@pytest.fixture(scope="session")
def authority(root) -> Party:
    return issue("Authority", root, usage("key_cert_sign", "crl_sign"), ca=True)


@pytest.fixture(scope="session")
def alice(authority) -> Party:
    return issue("Alice", authority, x509.ExtendedKeyUsage([EMAIL]), usage("digital_signature"), addresses=("alice@example.org",))
