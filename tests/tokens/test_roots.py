"""Mozilla's roots as NSS's module has them."""

from __future__ import annotations

import pytest

from mailsec.errors import MailsecError, UsageError
from mailsec.tokens.roots import find_roots_module, read_mozilla_roots
from mailsec.x509.certificate import load_certificate


@pytest.fixture(scope="module")
def roots():
    try:
        find_roots_module()
    except UsageError:
        pytest.skip("NSS's roots are not installed (Debian: libnss3)")
    return read_mozilla_roots()


def test_there_are_roots_for_email_and_roots_that_are_not(roots):
    trusted = [root for root in roots if root.email == "C"]
    assert 50 < len(trusted) < len(roots) and all(root.name and root.der for root in roots)
    assert any(root.email == "" for root in roots) and any(root.distrust_after is not None for root in roots)
    for root in trusted:
        constraints = load_certificate(root.der).basic_constraints
        assert constraints is None or constraints.ca, root.name


def test_the_module_can_be_read_again(roots):
    assert [root.der for root in read_mozilla_roots()] == [root.der for root in roots]


def test_a_library_that_is_not_there_or_none_is_said_so(tmp_path):
    (tmp_path / "x.so").write_bytes(b"no library")
    for path in (tmp_path / "absent.so", tmp_path / "x.so"):
        with pytest.raises(MailsecError) as caught:
            read_mozilla_roots(str(path))
        assert caught.value.hint
