"""The PROXY protocol: headers as HAProxy writes them, and what is none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import ProtocolError
from mailsec.wire.proxy import ProxyHeader, read_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def version_2(command: int, family: int, addresses: bytes, *, size: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + (len(addresses) if size is None else size).to_bytes(2, "big") + addresses


def tcp(source: str, destination: str, port: int = 56324) -> bytes:
    return ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + port.to_bytes(2, "big") + b"\x00\x19"


@pytest.mark.parametrize(
    ("octets", "header"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n", ProxyHeader("192.0.2.1", 56324)),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n", ProxyHeader("2001:db8::1", 65535)),
        (b"PROXY UNKNOWN\r\n", ProxyHeader()),
        (b"PROXY UNKNOWN ffff:f... ignored 1 2\r\n", ProxyHeader()),
        (version_2(0x21, 0x11, tcp("192.0.2.1", "198.51.100.2")), ProxyHeader("192.0.2.1", 56324)),
        (version_2(0x21, 0x21, tcp("2001:db8::1", "2001:db8::2")), ProxyHeader("2001:db8::1", 56324)),
        (version_2(0x21, 0x11, tcp("192.0.2.1", "198.51.100.2") + b"\x04\x00\x01x"), ProxyHeader("192.0.2.1", 56324)),
        # Attack: one /64 that holds all of IPv4, which one guesser locks out.
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 56324 25\r\n", ProxyHeader("192.0.2.1", 56324)),
        (version_2(0x21, 0x21, tcp("::ffff:192.0.2.1", "::ffff:198.51.100.2")), ProxyHeader("192.0.2.1", 56324)),
        (version_2(0x20, 0x00, b""), ProxyHeader()),
        (version_2(0x20, 0x11, tcp("192.0.2.1", "198.51.100.2")), ProxyHeader()),
        (version_2(0x21, 0x00, b""), ProxyHeader()),
    ],
)
def test_header_is_read_whole_and_what_stands_behind_it_is_left(octets, header):
    assert read_header(octets) == (header, len(octets))
    assert read_header(octets + b"EHLO x\r\n") == (header, len(octets))
    for length in range(len(octets)):
        assert read_header(octets[:length]) is None


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO x\r\n", b"\x16\x03\x01\x02\x00", b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\n", b"PROXY  TCP4 192.0.2.1 198.51.100.2 1 25\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 1 25\r\n", b"PROXY TCP4 2001:db8::1 2001:db8::2 1 25\r\n", b"PROXY TCP6 192.0.2.1 192.0.2.2 1 25\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 01 25\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 1 25\r\n", b"PROXY TCP4 " + b"1" * 200, b"proxy TCP4 192.0.2.1 198.51.100.2 1 25\r\n",
        version_2(0x11, 0x11, tcp("192.0.2.1", "198.51.100.2")), version_2(0x22, 0x11, tcp("192.0.2.1", "198.51.100.2")),
        version_2(0x21, 0x12, tcp("192.0.2.1", "198.51.100.2")), version_2(0x21, 0x31, bytes(216)), version_2(0x21, 0x11, b"short"),
        version_2(0x21, 0x11, b"", size=65535), SIGNATURE[:11] + b"X",
    ],
)  # fmt: skip
def test_what_is_no_header_is_refused(octets):
    with pytest.raises(ProtocolError):
        read_header(octets)


@given(st.binary(max_size=60), st.sampled_from([b"", b"PROXY ", SIGNATURE, b"PROXY TCP4 "]))
def test_any_octets_end_in_a_header_or_an_error(octets, begin):
    try:
        found = read_header(begin + octets)
    except ProtocolError:
        return
    if found is not None:
        header, size = found
        assert 0 < size <= len(begin + octets)
        assert header.host == "" or ipaddress.ip_address(header.host)
