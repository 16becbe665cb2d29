"""The supervisor's side of token hosts: it starts one for each module, gives each its PINs, and replaces one that died or hangs.

PINs are asked for once, kept in this process's memory, and given to a host when it starts, and again after a crash at most once a minute.
The one invariant: a PIN that a token has refused is forgotten here, and a PIN goes to the token only whose exact name it was asked for.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from twisted.internet import error
from twisted.internet.protocol import ClientFactory, Factory, ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from mailsec.app.config import Configuration
from mailsec.app.config.models import Module
from mailsec.app.modules import Assignments, keys_listed_before
from mailsec.app.pins import Pins
from mailsec.app.token_host import SUPERVISOR, settings_of
from mailsec.errors import ConfigurationError, MailsecError, TokenError
from mailsec.keys.frames import Frame, Verb, json_field, json_frame, read_json
from mailsec.net.runtime import as_deferred
from mailsec.net.token_client import HostConnection, ListedToken, read_listing

__all__ = ["HostTiming", "TokenHosts"]

_log = structlog.get_logger("mailsec.supervisor")

_GIVEN_AGAIN: Final = 60.0
_LOGIN_SECONDS: Final = 120.0
"""For a first login at a pin pad, and for a library that takes its time."""


@dataclass(frozen=True, slots=True)
class HostTiming:
    """Seconds that the supervisor waits for hosts."""

    silence: float = 30.0
    """A host that has not answered for so long is killed."""
    start: float = 120.0
    """The same for one that has not listed its tokens yet."""
    restart_first: float = 0.1
    restart_longest: float = 30.0
    stable: float = 60.0
    given_again: float = _GIVEN_AGAIN


class _Place(ProcessProtocol):
    """One module: the process that hosts it, or the timer that starts the next; or the connection to a host that systemd started."""

    transport: Any

    def __init__(self, hosts: TokenHosts, module: Module, settings: dict[str, Any]) -> None:
        self.hosts = hosts
        self.module = module
        self.settings = settings
        self.connection: HostConnection | None = None
        self.pid = 0
        self.running = False
        self.failures = 0
        self.started_at = self.heard_at = 0.0
        self.listed = False
        self.given_again_at = float("-inf")
        self.crashed = False
        self.left = False
        """Its host ends, and nobody starts it again."""
        self.unneeded = False
        """A reload has left the module out; workers of the generation before still use it."""

    # -- the process -------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.hosts.stopping or self.left:
            return
        reactor = self.hosts.reactor
        self.started_at = self.heard_at = reactor.seconds()
        self.listed = False
        if self.module.host:
            reactor.connectUNIX(self.settings["socket"], _Factory(self), timeout=5)
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            ours.setblocking(False)
            command = [*self.hosts.command, f"token host of {self.module.name}"]
            self.running = True
            reactor.spawnProcess(
                self, command[0], command, env=self.hosts.environment, childFDs={0: "w", 1: 1, 2: 2, SUPERVISOR: theirs.fileno()}
            )
            reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Adopting(self))

    def connectionMade(self) -> None:
        self.pid = self.transport.pid or 0
        self.transport.closeChildFD(0)

    def processEnded(self, reason: Failure) -> None:
        self.running = False
        ended: Any = reason.value
        how = f"signal {ended.signal}" if getattr(ended, "signal", None) else f"exit code {ended.exitCode}"
        if self.hosts.stopping:
            self.hosts.ended()
            return
        if self.left:
            return
        self.crashed = True
        self._again(how)

    def _again(self, how: str) -> None:
        timing = self.hosts.timing
        lived = self.hosts.reactor.seconds() - self.started_at
        if lived > timing.stable:
            self.failures = 0
        wait = min(timing.restart_first * 4**self.failures, timing.restart_longest)
        self.failures += 1
        _log.error("token host died; it is replaced", module=self.module.name, pid=self.pid, how=how, wait=wait)
        self.hosts.reactor.callLater(wait, self.start)

    def leave(self) -> None:
        """End it: the end of its connection is the end of a host."""
        self.left = True
        if self.connection is not None:
            self.connection.transport.loseConnection()
        elif self.running:
            self.kill()

    def kill(self) -> None:
        if self.running:
            try:
                self.transport.signalProcess("KILL")
            except error.ProcessExitedAlready:
                pass
        elif self.connection is not None:
            self.connection.transport.abortConnection()

    # -- the connection ------------------------------------------------------------------------------------------------------------

    def reached(self, connection: HostConnection) -> None:
        self.connection = connection
        as_deferred(self._configure(first=True)).addErrback(self._failed)

    def lost(self) -> None:
        self.connection = None
        if self.module.host and not (self.hosts.stopping or self.left):
            self._again("the connection is gone")

    async def _configure(self, *, first: bool) -> None:
        """Tell a host who it is and what it may know, and find PINs for tokens that need one."""
        name, hosts, connection = self.module.name, self.hosts, self.connection
        value: dict[str, Any] = hosts.assignments.told()
        if first:
            value["settings"] = self.settings
            value["log_key"] = hosts.log_key.hex()
        value |= self._pins()
        assert connection is not None
        if first and not self.module.host:
            # Before its socket has a reader, a host reads what it is.
            connection.transport.write(json_frame(Verb.CONFIGURE, 0, value))
            answer = await connection.ask(_LOGIN_SECONDS, Verb.LIST)
        else:
            answer = await connection.ask(_LOGIN_SECONDS, Verb.CONFIGURE, json_field(value))
        while True:
            tokens = read_listing(read_json(answer))
            self._listed(tokens)
            await self._tell_certificates(tokens)
            wanted = [token for token in tokens if self._wants_pin(token)]
            found = [await deferToThread(hosts.pins.obtain, name, token) for token in wanted]
            if self.connection is not connection:
                return
            self._tell_without_pin(connection, tokens)
            if not any(found):
                return
            answer = await connection.ask(_LOGIN_SECONDS, Verb.CONFIGURE, json_field(self._pins()))

    def _tell_without_pin(self, connection: HostConnection, tokens: Sequence[ListedToken]) -> None:
        """Which tokens nobody will log in to: mail waits no longer for what may be on them."""
        without = [
            token.name
            for token in tokens
            if token.login_required
            and not token.usable
            and not token.settled
            and (self.module.name, token.name) not in self.hosts.pins.known
        ]
        if without:
            connection.transport.write(json_frame(Verb.CONFIGURE, 0, {"without_pin": without}))

    def _pins(self) -> dict[str, Any]:
        """PINs for a host that starts; after a crash at most once a minute."""
        name, now, hosts = self.module.name, self.hosts.reactor.seconds(), self.hosts
        if self.crashed:
            left = self.given_again_at + hosts.timing.given_again - now
            if left > 0:
                hosts.reactor.callLater(left, self._give_later)
                return {}
            self.given_again_at, self.crashed = now, False
        return {"pins": hosts.pins.of(name), "proven": [token for module, token in hosts.pins.proven if module == name]}

    def _give_later(self) -> None:
        if self.connection is not None and not self.hosts.stopping:
            as_deferred(self._configure(first=False)).addErrback(self._failed)

    def _wants_pin(self, token: ListedToken) -> bool:
        pins, known = self.hosts.pins, (self.module.name, token.name)
        named = not self.module.tokens or token.name in self.module.tokens or token.label in self.module.tokens
        if not named or not token.login_required or token.usable or token.problem:
            return False
        return known not in pins.known and known not in pins.asked and known not in pins.refused

    def _listed(self, tokens: Sequence[ListedToken]) -> None:
        self.listed = True
        for token in tokens:
            if token.problem:
                self.hosts.pins.forget(self.module.name, token.name)
            elif token.usable:
                self.hosts.pins.refused.discard((self.module.name, token.name))

    async def _tell_certificates(self, tokens: Sequence[ListedToken]) -> None:
        """A key that is seen for the first time may have its certificate in the database alone."""
        hosts = self.hosts
        if hosts.assignments.listed(self.module.name, [key.public_key for token in tokens for key in token.keys]):
            hosts.refreshed(await deferToThread(hosts.assignments.refresh))

    def told(self, one: Frame) -> None:
        """The host says something by itself."""
        self.heard_at = self.hosts.reactor.seconds()
        name = self.module.name
        if one.verb == Verb.LOGGED_IN and len(one.fields) == 2:
            self.hosts.pins.keep(name, one.fields[0].decode("utf-8", "replace"), one.fields[1] or None)
        elif one.verb == Verb.CHANGED:
            self.hosts.pins.proven |= {(name, str(token)) for token in read_json(one).get("proven", ())}
            as_deferred(self._look_again()).addErrback(self._failed)

    async def _look_again(self) -> None:
        """A token was put in: it may need a PIN that nobody has asked for yet."""
        connection = self.connection
        if connection is not None:
            tokens = read_listing(read_json(await connection.ask(_LOGIN_SECONDS, Verb.LIST)))
            self._listed(tokens)
            await self._tell_certificates(tokens)
            if any(self._wants_pin(token) for token in tokens):
                await self._configure(first=False)
            else:
                self._tell_without_pin(connection, tokens)

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, MailsecError):
            _log.error("a token host does not start well", module=self.module.name, error=failure.value.message)
        else:
            _log.error("a token host does not start well: unexpected error", module=self.module.name, exc_info=failure.value)

    def ping(self) -> None:
        """Ask whether it lives; kill one that is silent, or whose library has been in one call for too long."""
        timing, now = self.hosts.timing, self.hosts.reactor.seconds()
        if self.connection is None or (self.module.host and not self.listed):
            return
        if now - self.heard_at > (timing.silence if self.listed else timing.start):
            _log.error("token host is silent; killing it", module=self.module.name, pid=self.pid, seconds=round(now - self.heard_at))
            self.kill()
            return
        self.connection.ask(timing.silence, Verb.PING).addCallbacks(self._pong, lambda _: None)

    def _pong(self, answer: Frame) -> None:
        self.heard_at = self.hosts.reactor.seconds()
        said, timing = read_json(answer), self.hosts.timing
        oldest, keeper = float(said.get("oldest", 0.0)), float(said.get("keeper", 0.0))
        # The keeper logs in, and somebody may be typing at a pin pad.
        if oldest > max(timing.silence, self.module.call_timeout) or keeper > timing.start:
            seconds = round(max(oldest, keeper))
            _log.error(
                "a call into the library does not end; killing its host",
                module=self.module.name,
                pid=self.pid,
                seconds=seconds,
            )
            self.kill()


class TokenHosts:
    """The hosts of all modules."""

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        modules: Sequence[Module],
        pins: Pins,
        assignments: Assignments,
        *,
        timing: HostTiming | None = None,
        command: Sequence[str] = (sys.executable, "-m", "mailsec.app.token_host"),
        environment: Mapping[str, str] | None = None,
        log_key: bytes = b"",
    ) -> None:
        """`log_key` is what they make pseudonyms with in their log."""
        _told_before(assignments, configuration, modules)
        assignments.refresh()
        self.log_key = log_key
        self.reactor = reactor
        self.pins = pins
        self.assignments = assignments
        self._asking = False
        self.timing = timing or HostTiming()
        self.command = list(command)
        self.environment = dict(os.environ if environment is None else environment)
        for name in ("NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "WATCHDOG_USEC", "WATCHDOG_PID"):
            self.environment.pop(name, None)
        self.stopping = False
        self.places: list[_Place] = [_Place(self, module, settings) for module, settings in _usable(configuration, modules)]
        self._on_ended: Callable[[], object] | None = None

    def start(self) -> None:
        """Start or reach every host."""
        for place in self.places:
            place.start()

    def change(self, configuration: Configuration, modules: Sequence[Module]) -> None:
        """Other modules, or others' settings (a reload): hosts of those that stay as they were go on.

        One whose module is left out goes on, too, until `end_unneeded`. One that becomes another makes way at once: they share a socket.
        """
        self.pins.settings = configuration.passphrase
        self.pins.asked.clear()
        known_names = {place.module.name for place in self.places}
        _told_before(self.assignments, configuration, [module for module in modules if module.name not in known_names])
        wanted = _usable(configuration, modules)
        names = {module.name for module in modules}
        staying = [place for place in self.places if (place.module, place.settings) in wanted or place.module.name not in names]
        for place in staying:
            place.unneeded = place.module.name not in names
        self._end([place for place in self.places if place not in staying])
        known = [(place.module, place.settings) for place in staying]
        new = [_Place(self, module, settings) for module, settings in wanted if (module, settings) not in known]
        self.places = [*staying, *new]
        for place in new:
            place.start()

    def end_unneeded(self) -> None:
        """No worker of an earlier generation is left: nobody uses the modules any more that a reload has left out."""
        self._end([place for place in self.places if place.unneeded])
        self.places = [place for place in self.places if not place.unneeded]

    def _end(self, places: Sequence[_Place]) -> None:
        for place in places:
            _log.info("token host ends", module=place.module.name, pid=place.pid)
            place.leave()

    def status(self) -> list[dict[str, Any]]:
        """Each module with its host."""
        return [
            {
                "module": place.module.name,
                "pid": place.pid,
                "state": "running" if place.listed else "starting" if place.running or place.connection is not None else "out",
            }
            for place in self.places
        ]

    async def login(self, token: str, pin: bytes | None) -> str:
        """A PIN that somebody has typed, for the token of that name or label; the module that has it. Raise TokenError for a wrong one."""
        for place in self.places:
            connection = place.connection
            if connection is None:
                continue
            listed = read_listing(read_json(await connection.ask(_LOGIN_SECONDS, Verb.LIST)))
            for one in listed:
                if token in (one.name, one.label):
                    await connection.ask(_LOGIN_SECONDS, Verb.LOGIN, one.name.encode(), pin or b"")
                    return place.module.name
        raise TokenError(f"no module has a token {token!r}", hint="mailsec token list shows them")

    def ping(self) -> None:
        """Called every few seconds: look after the hosts, and after the database, which says whose keys are whose."""
        for place in self.places:
            place.ping()
        if not self._asking and not self.stopping:
            self._asking = True
            deferToThread(self.assignments.refresh).addBoth(self._refreshed)

    def _refreshed(self, changed: object) -> None:
        self._asking = False
        self.refreshed(changed)

    def refreshed(self, changed: object) -> None:
        """Tell the hosts what the database says now, where that is something else."""
        if changed is True:
            for place in self.places:
                if place.connection is not None and place.listed:
                    place.connection.transport.write(json_frame(Verb.CONFIGURE, 0, self.assignments.told()))

    @property
    def alive(self) -> bool:
        """True while a process of ours runs."""
        return any(place.running for place in self.places)

    def stop(self, ended: Callable[[], object]) -> None:
        """End them; `ended` is called when all have gone. Called when no worker needs them any more."""
        self.stopping, self._on_ended = True, ended
        for place in self.places:
            if place.connection is not None:
                # The end of its connection is the end of a host.
                place.connection.transport.loseConnection()
        if not self.alive:
            ended()
            return
        self.reactor.callLater(3, self.kill)

    def kill(self) -> None:
        """End them at once."""
        for place in self.places:
            place.kill()

    def ended(self) -> None:
        """One has gone."""
        if not self.alive and self._on_ended is not None:
            ended, self._on_ended = self._on_ended, None
            ended()


def _told_before(assignments: Assignments, configuration: Configuration, modules: Sequence[Module]) -> None:
    """Keys that were there before: their certificates are told with the first frame."""
    for module in modules:
        assignments.listed(module.name, keys_listed_before(configuration.gateway.state_directory, module.name))


def _usable(configuration: Configuration, modules: Sequence[Module]) -> list[tuple[Module, dict[str, Any]]]:
    """Each module with what its host is started with. One that cannot be had keeps nobody else from working."""
    found = []
    for module in modules:
        try:
            found.append((module, settings_of(configuration, module)))
        except ConfigurationError as problem:
            _log.error("a module cannot be used", module=module.name, error=problem.message, hint=problem.hint)
    return found


class _Connected(HostConnection):
    def __init__(self, place: _Place) -> None:
        super().__init__(place.hosts.reactor, place.told, place.lost)
        self._place = place

    def connectionMade(self) -> None:
        self._place.reached(self)


class _Adopting(Factory):
    noisy = False

    def __init__(self, place: _Place) -> None:
        self._place = place

    def buildProtocol(self, addr: Any) -> HostConnection:
        return _Connected(self._place)


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, place: _Place) -> None:
        self._place = place

    def buildProtocol(self, addr: Any) -> HostConnection:
        return _Connected(self._place)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._place.lost()
