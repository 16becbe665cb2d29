"""Files that cost more to read than they are worth."""

from __future__ import annotations

import time

import pytest

from mailsec.errors import MailsecError
from mailsec.keys.files import load_certificates, pem_blocks


@pytest.mark.parametrize("line", [b"A: -----BEGIN A-----\n", b"A: x\n -----BEGIN A-----\n", b"-----BEGIN A-----\nAAAA\n"])
def test_pem_blocks_that_never_end_cost_linear_time(line: bytes) -> None:
    began = time.process_time()
    assert list(pem_blocks(line * 40_000)) == []
    with pytest.raises(MailsecError):
        load_certificates(line * 20_000)
    assert time.process_time() - began < 5
