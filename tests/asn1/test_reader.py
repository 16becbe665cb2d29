"""Elements and values: what DER and BER allow, and what hostile octets do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.asn1 import reader, values, writer
from mailsec.asn1.reader import read_element, read_single
from mailsec.errors import Asn1Error, LimitExceeded, MailsecError
from mailsec.model.limits import Limits


def everything(element: reader.Element) -> int:
    """Walk the whole tree; return how many elements it has."""
    count = 1
    if element.constructed:
        for child in element:
            count += everything(child)
    return count


@given(st.integers())
def test_integers_survive(value: int) -> None:
    der = writer.integer(value)
    assert values.read_integer(read_element(der)) == value


@given(st.lists(st.integers(0, 2**70), min_size=1, max_size=12), st.integers(0, 2), st.integers(0, 39))
def test_object_identifiers_survive(rest: list[int], first: int, second: int) -> None:
    dotted = ".".join(map(str, [first, second, *rest]))
    assert values.read_oid(read_element(writer.oid(dotted))) == dotted


def test_object_identifier_under_joint_iso_itu_t() -> None:
    assert writer.oid("2.999.3") == bytes.fromhex("0603883703")
    assert values.oid_of(bytes.fromhex("883703")) == "2.999.3"


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))
def test_times_survive(at: datetime) -> None:
    at = at.replace(microsecond=0, tzinfo=UTC)
    assert values.read_time(read_element(writer.time(at))) == at


@pytest.mark.parametrize(
    ("der", "expected"),
    [
        (b"\x17\x11260102030405+0100", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)),
        (b"\x17\x0b2601020304Z", datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)),
        (b"\x18\x1120260102030405.5Z", datetime(2026, 1, 2, 3, 4, 5, 500000, tzinfo=UTC)),
        (b"\x17\x0d500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (b"\x17\x0d491231235959Z", datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_odd_times_are_read(der: bytes, expected: datetime) -> None:
    assert values.read_time(read_element(der)) == expected


@pytest.mark.parametrize(
    "der", [b"\x17\x0d261302030405Z", b"\x17\x0c260102030405", b"\x18\x0f99991231235960Z", b"\x18\x1300010101000000+0100Z"]
)
def test_times_that_are_none_are_refused(der: bytes) -> None:
    with pytest.raises(Asn1Error):
        values.read_time(read_element(der))


@given(st.sets(st.integers(0, 40)))
def test_named_bits_survive(bits: set[int]) -> None:
    assert values.bit_string_bits(read_element(writer.named_bits(bits))) == bits


@given(st.binary(max_size=300))
def test_any_octets_end_in_elements_or_our_errors(octets: bytes) -> None:
    try:
        everything(read_element(octets))
    except MailsecError:
        pass


@given(st.binary(max_size=200))
def test_values_of_any_octets_end_in_values_or_our_errors(octets: bytes) -> None:
    try:
        element = read_element(octets)
    except MailsecError:
        return
    for read in (
        values.read_integer,
        values.read_oid,
        values.read_time,
        values.read_bit_string,
        values.read_octet_string,
        values.read_string,
        values.read_boolean,
        writer.to_der,
    ):
        try:
            read(element)
        except MailsecError:
            pass


def test_a_high_tag_number_is_read() -> None:
    element = read_element(bytes.fromhex("7f4e03020105"))
    assert element.tag == 0x7F4E
    assert values.read_integer(element.only()) == 5
    assert writer.header(0x7F4E, 3) == bytes.fromhex("7f4e03")


def test_indefinite_lengths_give_the_same_children() -> None:
    inner = writer.integer(7) + writer.octet_string(b"x" * 200)
    indefinite = b"\x30\x80" + b"\x30\x80" + inner + b"\0\0" + b"\x30\x80" + inner + b"\0\0" + b"\0\0"
    outer = read_element(indefinite + b"behind")
    assert not outer.definite
    assert outer.encoding == indefinite
    assert [[child.encoding for child in member] for member in outer] == [[writer.integer(7), writer.octet_string(b"x" * 200)]] * 2
    assert writer.to_der(outer) == writer.sequence(writer.sequence(inner), writer.sequence(inner))


def test_a_constructed_octet_string_of_any_nesting_is_joined() -> None:
    der = b"\x24\x80" + b"\x04\x01a" + b"\x24\x06" + b"\x04\x01b\x04\x01c" + b"\x24\x80\x04\x01d\0\0" + b"\0\0"
    assert values.read_octet_string(read_element(der)) == b"abcd"


def test_a_set_of_is_written_in_order() -> None:
    assert writer.set_of(b"\x04\x02zz", b"\x02\x01\x01", b"\x04\x01a") == b"\x31\x0a\x02\x01\x01\x04\x01a\x04\x02zz"
    unordered = b"\x31\x06\x02\x01\x09\x02\x01\x01"
    assert writer.to_der(read_element(unordered)) == b"\x31\x06\x02\x01\x01\x02\x01\x09"


# -- attacks ------------------------------------------------------------------------------------------------------------------


def test_deep_nesting_of_definite_lengths_is_a_limit() -> None:
    der = writer.NULL
    for _ in range(500):
        der = writer.sequence(der)
    with pytest.raises(LimitExceeded) as caught:
        everything(read_element(der))
    assert caught.value.limit == "asn1_depth"


def test_deep_nesting_of_indefinite_lengths_is_a_limit() -> None:
    with pytest.raises(LimitExceeded) as caught:
        read_element(b"\x30\x80" * 100_000)
    assert caught.value.limit == "asn1_depth"


def test_a_million_elements_are_a_limit() -> None:
    with pytest.raises(LimitExceeded) as caught:
        read_element(writer.sequence(b"\x05\x00" * 1_000_000)).children()
    assert caught.value.limit == "asn1_elements"


def test_indefinite_lengths_are_scanned_once_not_once_a_level() -> None:
    # 60 levels, each with 1,000 elements: scanned anew at every level they would be 1.8 million, over this limit.
    body = b"\x05\x00" * 1000
    der = b""
    for _ in range(60):
        der = b"\x30\x80" + body + der + b"\0\0"
    element = read_element(der, limits=Limits(asn1_elements=130_000))
    assert everything(element) == 60 * 1001


def test_a_huge_object_identifier_is_refused_before_it_is_computed() -> None:
    with pytest.raises(Asn1Error):
        values.read_oid(read_element(writer.header(0x06, 400_000) + b"\xff" * 399_999 + b"\x01"))


@pytest.mark.parametrize(
    "der",
    [
        "3005020101",  # longer than the octets
        "30030201",  # cut off
        "3004020301",  # child longer than its parent
        "0480",  # primitive and indefinite
        "3080020101",  # never ended
        "0000",  # end of contents alone
        "300400000500",  # end of contents within a definite length
        "30ff00",  # reserved length octet
        "1fffffffffff0100",  # tag number too long
        "",
        "30",
        "3082",
    ],
)
def test_broken_encodings_are_refused(der: str) -> None:
    with pytest.raises(Asn1Error):
        everything(read_element(bytes.fromhex(der)))


@pytest.mark.parametrize("der", ["0200", "02020001", "0202ffff", "020080"])
def test_integers_with_two_encodings_are_refused(der: str) -> None:
    with pytest.raises(Asn1Error):
        values.read_integer(read_element(bytes.fromhex(der)))


@pytest.mark.parametrize("der", ["0600", "060180", "06022a80", "0603802a03"])
def test_broken_object_identifiers_are_refused(der: str) -> None:
    with pytest.raises(Asn1Error):
        values.read_oid(read_element(bytes.fromhex(der)))


def test_octets_behind_a_single_element_are_refused() -> None:
    with pytest.raises(Asn1Error):
        read_single(writer.integer(1) + b"\0", reader.INTEGER)
