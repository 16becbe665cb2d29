"""Scratch and file-backed octets behave as bytes do, and leave nothing behind."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.errors import LocalProtocolError, StorageFull, StoreError
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import BytesOctets
from mailsec.store import scratch as module
from mailsec.store.scratch import FileOctets, FileScratch

SMALL = dataclasses.replace(DEFAULT_LIMITS, scratch_memory=100)


def written(directory, data: bytes, pieces: int = 7) -> FileScratch:
    scratch = FileScratch(str(directory), SMALL)
    step = max(1, len(data) // pieces)
    for start in range(0, len(data), step):
        scratch.append(memoryview(data)[start : start + step])
    return scratch


@pytest.mark.parametrize("size", [0, 1, 100, 101, 70_000, 600_000])
def test_what_was_written_is_read(tmp_path, size):
    data = os.urandom(size)
    scratch = written(tmp_path, data)
    assert len(scratch) == size
    octets = scratch.seal()
    assert isinstance(octets, FileOctets) == (size > 100)
    assert b"".join(octets.blocks()) == data
    assert max((len(block) for block in octets.blocks()), default=0) <= 256 * 1024
    assert octets.view(0, size) == data
    assert list(tmp_path.iterdir()) == []  # it has no name


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_find_is_the_find_of_bytes_across_the_borders_of_windows(tmp_path_factory, data):
    # Few different octets, so that patterns nearly match often; windows of 64 KiB are crossed by the filling.
    filling = data.draw(st.integers(65_500, 65_600))
    body = b"a" * filling + data.draw(st.binary(max_size=60).map(lambda raw: bytes(97 + octet % 2 for octet in raw))) + b"a" * 300_000
    octets = written(tmp_path_factory.getbasetemp(), body).seal()
    pattern = data.draw(st.text(alphabet="ab", min_size=1, max_size=6)).encode()
    start = data.draw(st.integers(0, filling + 80))
    end = data.draw(st.none() | st.integers(0, len(body) + 5))
    assert octets.find(pattern, start, end) == BytesOctets(body).find(pattern, start, end)
    low = data.draw(st.integers(0, len(body)))
    high = data.draw(st.integers(0, len(body) + 9))
    assert octets.view(low, high) == body[low:high]
    assert b"".join(octets.blocks(low, high)) == body[low:high]


def test_nothing_is_added_after_it_was_sealed(tmp_path):
    scratch = written(tmp_path, b"x" * 10)
    scratch.seal()
    with pytest.raises(LocalProtocolError):
        scratch.append(b"y")


def test_reading_after_it_was_given_back_is_an_error_of_ours(tmp_path):
    scratch = written(tmp_path, b"x" * 1000)
    octets = scratch.seal()
    scratch.discard()
    scratch.discard()
    with pytest.raises(StoreError):
        octets.view(0, 10)


def test_descriptors_are_given_back(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        written(tmp_path, b"x" * 1000).seal()
        written(tmp_path, b"x" * 1000)
        written(tmp_path, b"x" * 1000).discard()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_somebody_cut_off_is_an_error_not_a_signal(tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b"x" * 500_000)
    octets = FileOctets.open(str(path))
    os.truncate(path, 1000)
    with pytest.raises(StoreError):
        octets.view(0, 300_000)


def test_a_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(StoreError):
        FileOctets.open(str(tmp_path / "link"))


def test_a_full_disk_is_452(tmp_path, monkeypatch):
    def full(descriptor, chunk):
        raise OSError(28, "No space left on device")

    scratch = FileScratch(str(tmp_path), SMALL)
    scratch.append(b"x" * 50)
    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(StorageFull) as caught:
        scratch.append(b"x" * 100)
    assert caught.value.reply.code == 452
    scratch.discard()


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda descriptor, chunk: real(descriptor, bytes(chunk[:1000])))
    data = os.urandom(30_000)
    assert written(tmp_path, data, 2).seal().view(0, 30_000) == data


def test_a_file_system_without_unnamed_files_works_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "O_TMPFILE", os.O_DIRECTORY | 0o100000000)
    octets = written(tmp_path, b"x" * 1000).seal()
    assert octets.view(0, 1000) == b"x" * 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [None, 0, 99, 100, 5000, 9999])
def test_a_file_knows_whether_it_is_ascii_wherever_the_octet_stands_that_is_not(tmp_path, at):
    data = bytearray(b"a" * 10_000)
    if at is not None:
        data[at] = 0x80
    octets = written(tmp_path, bytes(data)).seal()
    assert isinstance(octets, FileOctets)
    assert octets.ascii == (at is None)
