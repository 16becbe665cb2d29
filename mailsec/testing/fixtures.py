"""The kit as fixtures of pytest: loaded by itself wherever mailsec is installed (entry point pytest11); nothing else of mailsec is imported
before a test asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailsec.testing.authority import Authority
    from mailsec.testing.gateway import MemoryGateway
    from mailsec.testing.runtime import FakeRuntime

__all__ = ["mailsec_authority", "mailsec_gateway", "mailsec_play", "mailsec_runtime"]


@pytest.fixture
def mailsec_runtime() -> FakeRuntime:
    """A runtime with a clock that the test moves, no threads, and no network: `run(coroutine)` drives everything to its end."""
    from mailsec.testing.runtime import FakeRuntime

    return FakeRuntime()


@pytest.fixture(scope="session")
def mailsec_authority() -> Authority:
    """A CA that issues certificates for mail."""
    from mailsec.testing.authority import Authority

    return Authority()


@pytest.fixture
def mailsec_gateway(mailsec_runtime: FakeRuntime) -> Callable[..., MemoryGateway]:
    """A function that makes a whole gateway in memory with the plugins that it is given."""
    from mailsec.testing.gateway import MemoryGateway

    def make(*plugins: object, **changes: Any) -> MemoryGateway:
        return MemoryGateway(*plugins, **{"runtime": mailsec_runtime, **changes})

    return make


@pytest.fixture
def mailsec_play(mailsec_runtime: FakeRuntime) -> Callable[..., None]:
    """A function that plays a transcript (`mailsec.testing.dialog`) against a `TcpService`."""
    from mailsec.testing import values
    from mailsec.testing.dialog import play

    def against(service: Any, transcript: str, *, line_end: bytes = b"\r\n", **session: Any) -> None:
        play(transcript, lambda: service.open(values.session(**session)), mailsec_runtime.run, line_end=line_end)

    return against
