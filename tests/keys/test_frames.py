"""Frames of token hosts: there and back, cut anywhere, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import CryptoError, KeyUnavailable, MailsecError, RemoteProtocolError, StoreError, TokenError
from mailsec.keys.frames import Frame, FrameReader, Verb, error_frame, error_of, frame, json_frame, read_json

FRAMES = st.lists(st.builds(Frame, st.integers(0, 255), st.integers(0, 2**32 - 1), st.lists(st.binary(max_size=40), max_size=6).map(tuple)))


@given(FRAMES, st.integers(1, 50))
def test_frames_survive_any_splitting(frames: list[Frame], size: int):
    data = b"".join(frame(one.verb, one.number, *one.fields) for one in frames)
    reader = FrameReader()
    assert [one for start in range(0, len(data), size) for one in reader.feed(data[start : start + size])] == frames


@given(st.binary(max_size=200))
def test_attack_any_octets_are_frames_or_an_error(data: bytes):
    reader = FrameReader(most=1000)
    try:
        for one in reader.feed(data):
            assert sum(map(len, one.fields)) <= len(data)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    "octets",
    [
        struct.pack(">IBI", 4, 1, 1),
        struct.pack(">IBII", 9, 1, 1, 1),
        struct.pack(">IBI", 8, 1, 1) + b"abc",
        struct.pack(">IBII", 9, 1, 1, 2**32 - 1),
    ],
)
def test_attack_lengths_that_do_not_fit_are_refused(octets: bytes):
    with pytest.raises(RemoteProtocolError):
        list(FrameReader().feed(octets))


def test_attack_a_frame_that_would_fill_memory_is_refused_by_its_head():
    with pytest.raises(RemoteProtocolError):
        list(FrameReader().feed(struct.pack(">IBI", 2**32 - 1, 1, 1)))


@pytest.mark.parametrize("error", [KeyUnavailable, TokenError, CryptoError])
def test_errors_arrive_as_what_they_were(error: type[MailsecError]):
    (one,) = FrameReader().feed(error_frame(7, error("it is out", hint="put it in", stage="token:HSM 1")))
    found = error_of(one)
    assert (type(found), found.message, found.hint, found.stage, one.number) == (error, "it is out", "put it in", "token:HSM 1", 7)


def test_an_error_that_the_other_end_does_not_know_is_no_reason_to_come_back():
    (one,) = FrameReader().feed(error_frame(7, StoreError("disk")))
    assert type(error_of(one)) is CryptoError
    assert type(error_of(Frame(Verb.ERROR, 1, ()))) is CryptoError
    assert type(error_of(Frame(Verb.ERROR, 1, (b"SystemExit", b"", b"", b"")))) is CryptoError


def test_json_is_an_object_or_refused():
    (one,) = FrameReader().feed(json_frame(Verb.CHANGED, 0, {"back": ["HSM 1"]}))
    assert read_json(one) == {"back": ["HSM 1"]}
    for fields in ((), (b"[1]",), (b"{",), (b"\xff",), (b"[" * 100_000,)):
        with pytest.raises(RemoteProtocolError):
            read_json(Frame(Verb.CHANGED, 0, fields))
