"""Tokens for the tests of this folder: SoftHSM2, alone and behind a module that fails on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from mailsec.tokens.module import Module
from mailsec.tokens.state import StateDirectory
from tests.peers.inbox import Inbox
from tests.peers.softhsm import Shim, SoftHsm
from tests.peers.token_world import World


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory) -> Iterator[SoftHsm]:
    """Two tokens whose names begin alike."""
    hsm = SoftHsm(tmp_path_factory.mktemp("hsm"))
    hsm.add("HSM 1", "1234")
    hsm.add("HSM 10", "pin with blanks ")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hsm.environment.items():
            patch.setenv(name, value)
        yield hsm


@pytest.fixture(scope="module")
def module(softhsm: SoftHsm) -> Iterator[Module]:
    """The module of these tokens, logged in to the first."""
    with Module("soft", softhsm.library, state=StateDirectory(softhsm.state)) as loaded:
        loaded.login("HSM 1", b"1234")
        yield loaded


@pytest.fixture
def shim(softhsm: SoftHsm, tmp_path, monkeypatch) -> Shim:
    """The same tokens behind the shim, which works until it is told otherwise."""
    made = Shim(tmp_path / "shim")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def shimmed(shim: Shim, tmp_path) -> Iterator[Module]:
    with Module("shim", shim.library, state=StateDirectory(tmp_path / "state")) as loaded:
        yield loaded
        shim.say()


@pytest.fixture
def make(tmp_path) -> Iterator[Callable[..., World]]:
    """A function that makes worlds and starts them."""
    before = dict(os.environ)
    made: list[World] = []
    with Inbox() as inbox:

        def world(**options) -> World:
            made.append(World(tmp_path, inbox, **options))
            return made[-1]

        yield world
        for one in made:
            one.gateway.close()
    os.environ.clear()
    os.environ.update(before)
