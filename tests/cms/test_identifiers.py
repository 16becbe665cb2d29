"""How CMS names a certificate: short names, which are remembered, and long ones, which are not, are read alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.asn1 import writer
from mailsec.asn1.reader import read_element
from mailsec.cms.identifiers import issuer_and_serial
from mailsec.errors import Asn1Error


def name(text: str) -> bytes:
    return writer.sequence(writer.set_of(writer.sequence(writer.oid("2.5.4.3"), writer.utf8_string(text))))


@given(st.text(max_size=600), st.integers(min_value=-(2**160), max_value=2**160))
def test_a_name_and_a_number_however_often_it_is_asked_for(text: str, serial: int) -> None:
    encoding = writer.sequence(name(text), writer.integer(serial))
    for _ in range(2):
        assert issuer_and_serial(read_element(encoding)) == (name(text), serial)
    # Another number under the same name is another certificate.
    assert issuer_and_serial(read_element(writer.sequence(name(text), writer.integer(serial + 1)))) == (name(text), serial + 1)


@pytest.mark.parametrize("text", ["short", "long" * 200])
@pytest.mark.parametrize("behind", [(), (writer.NULL,), (writer.integer(1), writer.integer(1))])
def test_anything_else_is_refused_each_time(text: str, behind: tuple[bytes, ...]) -> None:
    for _ in range(2):
        with pytest.raises(Asn1Error):
            issuer_and_serial(read_element(writer.sequence(name(text), *behind)))
