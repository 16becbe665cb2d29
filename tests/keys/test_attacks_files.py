"""Files that cost more to read than they are worth."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from mailsec.errors import LimitExceeded, MailsecError
from mailsec.keys.files import load_certificates, load_pkcs12, pem_blocks
from mailsec.model.limits import Limits
from mailsec.x509.issue import make_key


@pytest.mark.parametrize("line", [b"A: -----BEGIN A-----\n", b"A: x\n -----BEGIN A-----\n", b"-----BEGIN A-----\nAAAA\n"])
def test_pem_blocks_that_never_end_cost_linear_time(line: bytes) -> None:
    began = time.process_time()
    assert list(pem_blocks(line * 40_000)) == []
    with pytest.raises(MailsecError):
        load_certificates(line * 20_000)
    assert time.process_time() - began < 5


def test_a_pkcs12_file_of_many_dear_bags_is_refused_before_any_is_opened() -> None:
    key = serialization.load_der_private_key(make_key("ec-p256"), None)
    encryption = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(2000).build(b"x")
    data = pkcs12.serialize_key_and_certificates(b"n", key, None, None, encryption)
    assert len(load_pkcs12(data, b"x").keys) == 1
    # 2,000 for the MAC and twice 2,000 for the key: each is within the limit, all together are not.
    with pytest.raises(LimitExceeded, match="iterations"):
        load_pkcs12(data, b"x", limits=Limits(kdf_iterations_of_file=4000))
