"""Sealed rows: what comes back is what went in, or Tampered; nothing else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import StoreError, Tampered
from mailsec.model.octets import BytesOctets
from mailsec.store.spool_seal import Sealer

SEALER = Sealer(b"k" * 32, os.urandom)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 300_001])
def test_comes_back_whole_and_in_parts(size):
    clear = os.urandom(size)
    pieces = [clear[start : start + 10_000] for start in range(0, size, 10_000)]
    sealed = b"".join(SEALER.seal("row body", pieces))
    octets = SEALER.open("row body", BytesOctets(sealed))
    assert len(octets) == size
    assert b"".join(octets.blocks()) == clear
    assert octets.view(size - 5, size + 5) == clear[max(size - 5, 0) :]
    assert octets.view(65_530, 65_545) == clear[65_530:65_545]


def test_the_same_octets_are_sealed_differently_each_time():
    assert SEALER.seal_small("row", b"x") != SEALER.seal_small("row", b"x")


def test_a_sealed_row_cannot_stand_in_the_place_of_another():
    with pytest.raises(Tampered):
        SEALER.open_small("b body", BytesOctets(SEALER.seal_small("a body", b"secret")))


@pytest.mark.parametrize("chunks", [1, 2])
def test_cut_off_at_the_border_of_a_chunk(chunks):
    sealed = SEALER.seal_small("row", b"x" * (65536 * 3))
    with pytest.raises(Tampered):
        SEALER.open("row", BytesOctets(sealed[: 17 + chunks * (65536 + 16)]))


def test_chunks_that_changed_places():
    sealed = SEALER.seal_small("row", os.urandom(65536 * 3))
    chunk = 65536 + 16
    changed = sealed[:17] + sealed[17 + chunk : 17 + 2 * chunk] + sealed[17 : 17 + chunk] + sealed[17 + 2 * chunk :]
    with pytest.raises(Tampered):
        b"".join(SEALER.open("row", BytesOctets(changed)).blocks())


@given(st.binary(max_size=200))
def test_any_octets_end_in_tampered(octets):
    with pytest.raises(Tampered):
        SEALER.open_small("row", BytesOctets(octets))


@given(st.integers(min_value=0, max_value=100), st.integers(min_value=1, max_value=255))
def test_one_changed_octet_is_seen(position, change):
    sealed = bytearray(SEALER.seal_small("row", b"some octets that are of interest to somebody, and some more: 0123456"))
    sealed[position % len(sealed)] ^= change
    with pytest.raises(Tampered):
        SEALER.open_small("row", BytesOctets(bytes(sealed)))


def test_without_a_data_key_nothing_is_sealed():
    with pytest.raises(StoreError):
        Sealer(None, os.urandom).seal_small("row", b"x")


def test_repr_shows_no_key():
    assert "k" * 4 not in repr(SEALER)
