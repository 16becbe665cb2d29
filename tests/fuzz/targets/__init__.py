"""Fuzz targets: what is read from outside, each with one invariant that holds for any octets.

`make test` gives each a fixed number of inputs (`test_targets`), `make fuzz` lets atheris look for inputs that reach new code
(`python -m tests.fuzz.explore`). An input that broke one once lies in `tests/fuzz/found` and is looked at ever after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed."""

    name: str
    check: Callable[[bytes], str]
    """Says in a word how far the input came; raises AssertionError, or anything else, where the invariant does not hold."""
    seeds: Callable[[], Sequence[bytes]]
    """Inputs of our own to begin with, about which it is known what must come out."""
    others: Callable[[], Sequence[bytes]]
    """Third-party inputs, where they are present."""
    words: Sequence[bytes]
    """What the grammar is made of."""
    reached: frozenset[str]
    """Words of `check` that mutants must reach: else they are all refused at the door, and nothing is tested."""
    fixed_steps: int
    """Steps (`fuzz.steps`) for any input, and"""
    steps_an_octet: int
    """for each of its octets."""
