"""Commands that go to the network: a coroutine with a real `Runtime`, in a reactor that lives as long as it does. Once a process.

The one invariant: what a person types may be asked anywhere; what a certificate names goes through the filter of addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mailsec.errors import LocalProtocolError
from mailsec.interfaces import Runtime
from mailsec.model.networks import read_network
from mailsec.model.settings import RevocationSettings

__all__ = ["run_online"]

T = TypeVar("T")


def run_online(function: Callable[[Runtime], Coroutine[Any, Any, T]], revocation: RevocationSettings, *, typed: bool = False) -> T:
    """The result of `function(runtime)`, or its error. `typed`: the addresses were given by the person who called."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from mailsec.app.config.models import Log
    from mailsec.app.logs import configure_logs
    from mailsec.net.fetcher import FetchRules
    from mailsec.net.runtime import TwistedRuntime

    # What is worth a line in a log is told by the command; standard output is for its answer.
    configure_logs(Log(level="error"), lasting=False)
    anyreactor: Any = reactor
    networks = tuple(map(read_network, revocation.allow_networks))
    rules = FetchRules(networks, frozenset(revocation.allow_ports), revocation.proxy, anywhere=typed)
    runtime = TwistedRuntime(anyreactor, fetch_rules=rules)
    outcome: list[Any] = []

    def begin() -> None:
        Deferred.fromCoroutine(function(runtime)).addBoth(ended)

    def ended(result: Any) -> None:
        outcome.append(result)
        anyreactor.stop()

    anyreactor.callWhenRunning(begin)
    anyreactor.run()
    if not outcome:
        raise LocalProtocolError("interrupted before there was an answer")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    result: T = outcome[0]
    return result
