"""Mutations of octets with a fixed seed: the same inputs on every run, more of them with MAILSEC_FUZZ=N (`make fuzz`).

The invariant of every target: a value or one of our errors, in time that the size of the input bounds.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence

from mailsec.errors import MailsecError

FACTOR = int(os.environ.get("MAILSEC_FUZZ", "1"))
SECONDS = 5.0
"""For one input of some kilobytes: a hundred times what any should take on a machine that others use too."""

_LENGTHS = (b"\x80", b"\x7f", b"\x81\xff", b"\x82\xff\xff", b"\x84\xff\xff\xff\xff", b"\x88" + b"\xff" * 8, b"\x00", b"\xff")
WORDS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n", b"\r\n ", b"--", b"\r\n--", b'"', b"(", b")", b";", b"=", b"<", b">", b"@", b",", b":"),
    *(b"=?utf-8?q?", b"?=", b"\xff", b"\xc3\xa9", b"%00", b"*0*=", b"From: a@b.example\r\n"),
    *(b"Content-Type: multipart/signed\r\n", b"Content-Transfer-Encoding: base64\r\n"),
)


def mutants(seeds: Sequence[bytes], count: int, *, words: Sequence[bytes] = (), seed: int = 1) -> Iterator[bytes]:
    """`count` times FACTOR mutants of the seeds: bits, octets, cuts, repetitions, pieces of others, lengths and words put in."""
    chance = random.Random(seed * 1000 + FACTOR)
    for _ in range(count * FACTOR):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            if not data:
                break
            at = chance.randrange(len(data))
            end = min(len(data), at + chance.choice((1, 2, 4, 16, 200)))
            how = chance.randrange(8)
            if how == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif how == 1:
                data[at] = chance.randrange(256)
            elif how == 2:
                del data[at:end]
            elif how == 3:
                data[at:at] = data[at:end] * chance.choice((1, 2, 50))
            elif how == 4:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                data[at:end] = other[start : start + chance.choice((1, 16, 300))]
            elif how == 5:
                data[at:end] = chance.choice(_LENGTHS)
            elif how == 6:
                data[at:at] = chance.choice(words or WORDS)
            else:
                del data[at:]
        yield bytes(data)


def hold(target: Callable[[bytes], object], data: bytes) -> object:
    """Run the target; None for one of our errors. Anything else, or too long a time, fails with the input."""
    began = time.process_time()
    try:
        result = target(data)
    except MailsecError:
        result = None
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error} for {data.hex()}") from error
    assert time.process_time() - began < SECONDS, f"{time.process_time() - began:.1f} s for {len(data)} octets: {data[:2000].hex()}"
    return result
