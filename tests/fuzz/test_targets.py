"""Each fuzz target for a fixed number of inputs: its seeds, mutants of them, and whatever broke it once. `make fuzz` goes on from there."""

from __future__ import annotations

import pytest

from .explore import FOUND, NAMES, target_named
from .mutations import mutants
from .steps import TooMuchWork, steps
from .targets import Target

INPUTS = {"asn1": 1000, "cms": 1000, "mime": 800, "unprotect": 800}


def hold(target: Target, data: bytes) -> str:
    """The invariant holds, within the steps that the size of the input allows; how far it came."""
    most = target.fixed_steps + target.steps_an_octet * len(data)
    words: list[str] = []
    try:
        steps(lambda: words.append(target.check(data)), most)
    except (Exception, TooMuchWork) as error:
        raise AssertionError(f"{type(error).__name__}: {error}, for {data.hex()}") from error
    return words[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_invariant_holds_for_every_seed(name: str) -> None:
    target = target_named(name)
    for seed in (*target.seeds(), *target.others()):
        hold(target, seed)


@pytest.mark.parametrize("name", NAMES)
def test_the_invariant_holds_for_mutants(name: str) -> None:
    target = target_named(name)
    words = {hold(target, data) for data in mutants(target.seeds(), INPUTS[name], words=target.words, seed=10)}
    assert words >= target.reached
    everything = [*target.seeds(), *target.others()]
    for data in mutants(everything, INPUTS[name] // 2, words=target.words, seed=11):
        hold(target, data)


def test_the_invariant_holds_for_what_broke_it_once() -> None:
    for path in sorted(FOUND.glob("*")):
        hold(target_named(path.name.partition("-")[0]), path.read_bytes())
