"""A reload: the file is read once, checked by a child, its ports are opened, and a new generation takes over from the old one.

The one invariant: where anything about the new configuration is wrong, everything stays as it was: ports, token hosts, workers.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from mailsec.app.config import Configuration, gateway_settings
from mailsec.app.config.load import load_configuration, read_text
from mailsec.app.config.models import Module
from mailsec.app.config.problems import ConfigurationErrors, Problem
from mailsec.app.generation import Orders
from mailsec.app.logs import configure_logs
from mailsec.app.ports import Ports
from mailsec.app.reload_check import ANSWER
from mailsec.app.supervisor import Supervisor, Timing
from mailsec.app.token_hosts import TokenHosts
from mailsec.errors import ConfigurationError, MailsecError, TryLater

__all__ = ["Reloading", "timing_of", "worker_count"]

_log = structlog.get_logger("mailsec.supervisor")

_CHECK_SECONDS: Final = 120.0
_UNCHANGED: Final = "nothing was changed"


def worker_count(configuration: Configuration) -> int:
    """How many workers a configuration asks for."""
    return configuration.gateway.workers or len(os.sched_getaffinity(0))


def timing_of(configuration: Configuration) -> Timing:
    """How long a configuration lets things take."""
    return Timing(drain=configuration.gateway.drain_timeout, retire=configuration.gateway.retire_timeout)


class Reloading:
    """What is in force, and how something else comes into force."""

    def __init__(
        self,
        supervisor: Supervisor,
        ports: Ports,
        configuration: Configuration,
        modules: Sequence[Module],
        make_hosts: Callable[[Configuration, Sequence[Module], bytes], TokenHosts],
    ) -> None:
        self.supervisor = supervisor
        self.ports = ports
        self.configuration = configuration
        """The one that is in force."""
        self.modules = tuple(modules)
        self.under_way = False
        self.count = 0
        """Reloads that succeeded."""
        self.failed = 0
        self.on_changed: list[Callable[[Configuration], object]] = []
        self._again = False
        self._make_hosts = make_hosts

    def hangup(self) -> None:
        """SIGHUP. One that comes during a reload is kept: the file may have changed after it was read."""
        if self.under_way:
            self._again = True
            return
        Deferred.fromCoroutine(self.reload(lambda _: None)).addErrback(_told_already)

    async def reload(self, progress: Callable[[str], None]) -> dict[str, Any]:
        """Bring the file as it is now into force; raise ConfigurationErrors or MailsecError where that cannot be."""
        if self.under_way:
            raise TryLater("a reload is under way already", hint="mailsec status tells when it is over")
        if self.supervisor.stopping:
            raise MailsecError("mailsec is stopping")
        self.under_way = True
        self.supervisor.systemd.reloading()
        try:
            doubts = await self._reload(progress)
        except BaseException as error:
            self.failed += 1
            if isinstance(error, MailsecError):
                problems = error.problems if isinstance(error, ConfigurationErrors) else (error,)
                for problem in problems:
                    _log.error("reload refused", error=problem.message, hint=problem.hint)
            raise
        finally:
            self.under_way = False
            if not self.supervisor.stopping:
                self.supervisor.systemd.tell("READY=1", f"STATUS={self.supervisor.serving.orders.workers} workers")
            if self._again:
                self._again = False
                self.supervisor.reactor.callLater(0, self.hangup)
        self.count += 1
        return {"generation": self.supervisor.serving.number, "workers": self.supervisor.serving.orders.workers, "notes": doubts}

    async def _reload(self, progress: Callable[[str], None]) -> list[str]:
        before, orders = self.configuration, self.supervisor.serving.orders
        text = read_text(before.path)
        progress(f"checking {before.path}")
        known = {"location": before.database.location, "data_key": base64.b64encode(orders.data_key).decode("ascii")}
        checked = await _check(self.supervisor.reactor, {"path": before.path, "text": text, **known})
        if checked["errors"]:
            raise ConfigurationErrors([ConfigurationError(one["message"], hint=one["hint"]) for one in checked["errors"]], _UNCHANGED)
        configuration = load_configuration(before.path, text)
        _refuse_moves(before, configuration)
        modules = [Module.model_validate(one) for one in checked["modules"]]
        data_key = base64.b64decode(checked["data_key"])
        addresses = [listener.address for listener in gateway_settings(configuration).listeners]
        sockets, problems = self.ports.open(addresses)
        if problems:
            raise configuration.errors(problems, _UNCHANGED)
        progress("starting a new generation of workers")
        try:
            self._change_hosts(configuration, modules, data_key)
            await self.supervisor.replace(
                Orders(before.path, text, data_key, worker_count(configuration), sockets), timing_of(configuration)
            )
        except MailsecError:
            self.ports.keep([listener.address for listener in before.listeners] if orders.listening else [])
            self._change_hosts(before, self.modules, orders.data_key)
            self.supervisor.let_go()
            raise
        self.ports.keep(addresses)
        self.configuration, self.modules = configuration, tuple(modules)
        for doubt, hint in checked["doubts"]:
            _log.warning("server certificate in doubt", error=doubt, hint=hint)
        try:
            configure_logs(configuration.log, data_key=data_key, lasting=False)
        except ConfigurationError as error:
            _log.error("the supervisor goes on with the log that it had", error=error.message, hint=error.hint)
        for changed in self.on_changed:
            changed(configuration)
        return [doubt for doubt, _ in checked["doubts"]]

    def _change_hosts(self, configuration: Configuration, modules: Sequence[Module], data_key: bytes) -> None:
        supervisor = self.supervisor
        if supervisor.hosts is not None:
            supervisor.hosts.change(configuration, modules)
        elif modules:
            supervisor.hosts = self._make_hosts(configuration, modules, data_key)
            supervisor.hosts.start()


def _refuse_moves(before: Configuration, after: Configuration) -> None:
    """What both generations use at once cannot move from one place to another."""
    moved = [
        (("gateway", "run_directory"), before.gateway.run_directory != after.gateway.run_directory),
        (("gateway", "state_directory"), before.gateway.state_directory != after.gateway.state_directory),
        (("spool", "directory"), before.spool.directory != after.spool.directory),
        (("database", "location"), before.database.location != after.database.location and bool(after.modules or before.modules)),
    ]
    problems = [
        Problem(path, "this changes only while mailsec is stopped", "systemctl stop mailsec, and start it again")
        for path, is_so in moved
        if is_so
    ]
    if problems:
        raise after.errors(problems, _UNCHANGED)


def _told_already(failure: Failure) -> None:
    """A refusal is in the log; anything else is a mistake of ours."""
    if not isinstance(failure.value, MailsecError):
        _log.error("reload: unexpected error", exc_info=failure.value)


class _Child(ProcessProtocol):
    """The child that checks: it is told everything at once, and what it says on `ANSWER` is collected."""

    transport: Any

    def __init__(self, reactor: Any, question: bytes) -> None:
        self.ended: Deferred[bytes] = Deferred()
        self._question = question
        self._answer = b""
        self._timer = reactor.callLater(_CHECK_SECONDS, self._too_long)

    def connectionMade(self) -> None:
        self.transport.writeToChild(0, self._question)
        self.transport.closeChildFD(0)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == ANSWER:
            self._answer += data

    def _too_long(self) -> None:
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass

    def processEnded(self, reason: Failure) -> None:
        if self._timer.active():
            self._timer.cancel()
        self.ended.callback(self._answer)


async def _check(reactor: Any, question: dict[str, Any]) -> dict[str, Any]:
    child = _Child(reactor, json.dumps(question).encode("ascii"))
    environment = {name: value for name, value in os.environ.items() if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}
    command = [sys.executable, "-m", "mailsec.app.reload_check"]
    reactor.spawnProcess(child, command[0], command, env=environment, childFDs={0: "w", 1: 1, 2: 2, ANSWER: "r"}, path=str(Path.cwd()))
    answer = await child.ended
    try:
        return dict(json.loads(answer))
    except ValueError:
        raise MailsecError("the configuration could not be checked", hint="mailsec check tells more") from None
