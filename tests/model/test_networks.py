"""Which addresses a certificate may send us to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.model.networks import is_public, lies_in, read_network

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fd12::1", "ff02::1", "fec0::1", "2001:db8::1", "2001::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::1", "2002:a00:1::1", "100::1", "3fff::1", "localhost", "", "1", "127.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"])
def test_public(address):
    assert is_public(address)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_never_more_public_than_the_standard_library_says(address):
    embeds = isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.sixtofour)
    if is_public(str(address)) and not embeds:
        assert address.is_global and not address.is_multicast and not address.is_loopback and not address.is_link_local


def test_networks_that_were_allowed():
    networks = (read_network("10.1.0.0/16"), read_network("fd00::/8"))
    assert lies_in("10.1.2.3", networks) and lies_in("::ffff:10.1.2.3", networks) and lies_in("fd01::1", networks)
    assert not lies_in("10.2.0.1", networks) and not lies_in("x", networks)
