"""What people may ask of a running mailsec, by `run/control`: reload, drain, flush, wake, token-login, status."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from mailsec import __version__
from mailsec.app.generation import Generation
from mailsec.app.reloading import Reloading
from mailsec.errors import MailsecError, UsageError

__all__ = ["Operations"]

_log = structlog.get_logger("mailsec.control")


class Operations:
    """Answers each question with a mapping, or raises MailsecError."""

    def __init__(self, reloading: Reloading) -> None:
        self.reloading = reloading
        self.supervisor = reloading.supervisor

    async def answer(self, question: Mapping[str, Any], progress: Callable[[str], None]) -> Mapping[str, Any]:
        """One question; `progress` is told what is being done while it takes its time."""
        words: Mapping[str, Callable[[], Mapping[str, Any]]] = {
            "status": self.status,
            "drain": self.drain,
            "flush": lambda: self._all("flush"),
            "wake": lambda: self._all("wake"),
        }
        word = question["do"]
        if word in words:
            return words[word]()
        if word == "reload":
            return await self.reloading.reload(progress)
        if word == "token-login":
            return await self._login(question)
        raise UsageError(f"there is nothing called {str(word)[:40]!r}", hint=f"there are: {', '.join([*words, 'reload', 'token-login'])}")

    @property
    def state(self) -> str:
        """starting, running, reloading, drained or stopping."""
        supervisor = self.supervisor
        if supervisor.stopping:
            return "stopping"
        if self.reloading.under_way:
            return "reloading"
        if not supervisor.serving.orders.listening:
            return "drained"
        # One is enough: mail is taken while the place of another is filled again.
        return "running" if any(worker.ready for worker in supervisor.serving.workers.values()) else "starting"

    def status(self) -> dict[str, Any]:
        """Processes, ports and token hosts as they are now."""
        supervisor, now = self.supervisor, self.supervisor.reactor.seconds()
        return {
            "state": self.state,
            "version": __version__,
            "pid": os.getpid(),
            "configuration": self.reloading.configuration.path,
            "uptime": round(now - supervisor.started_at),
            "generation": supervisor.serving.number,
            "reloads": self.reloading.count,
            "refused_reloads": self.reloading.failed,
            "deaths": supervisor.deaths,
            "ports": [listener.address for listener in self.reloading.configuration.listeners]
            if supervisor.serving.orders.listening
            else [],
            "workers": [
                {
                    "worker": worker.number,
                    "pid": worker.pid,
                    "generation": generation.number,
                    "state": self._state(generation, worker.ready),
                    "uptime": round(now - worker.started_at),
                    "heard": round(now - worker.heard_at, 1),
                }
                for generation in supervisor.generations
                for worker in generation.workers.values()
            ],
            "token_hosts": supervisor.hosts.status() if supervisor.hosts is not None else [],
        }

    def measured(self) -> dict[str, dict[tuple[str, ...], float]]:
        """The supervisor's own values, for metrics."""
        supervisor = self.supervisor
        states: dict[tuple[str, ...], float] = {(state,): 0.0 for state in ("running", "starting", "drained", "leaving")}
        for generation in supervisor.generations:
            for worker in generation.workers.values():
                states[self._state(generation, worker.ready),] += 1
        hosts = supervisor.hosts.status() if supervisor.hosts is not None else []
        return {
            "mailsec_up_seconds": {(): supervisor.reactor.seconds() - supervisor.started_at},
            "mailsec_workers": states,
            "mailsec_worker_deaths_total": {(): supervisor.deaths},
            "mailsec_generation": {(): supervisor.serving.number},
            "mailsec_reloads_total": {("done",): self.reloading.count, ("refused",): self.reloading.failed},
            "mailsec_token_hosts": {(host["module"],): float(host["state"] == "running") for host in hosts},
        }

    def health(self) -> dict[str, Any]:
        """Whether it should go on running ("healthy"), and whether mail should be sent here ("ready")."""
        supervisor = self.supervisor
        alive = sum(1 for worker in supervisor.serving.workers.values() if worker.ready)
        ready = self.state in ("running", "reloading") and alive > 0
        # Workers that die and die again are "starting", too, and not well.
        return {
            "healthy": alive > 0 or (self.state == "starting" and not supervisor.was_ready),
            "ready": ready,
            "state": self.state,
            "workers": alive,
        }

    def _state(self, generation: Generation, ready: bool) -> str:
        if generation in self.supervisor.leaving:
            return "leaving"
        if not ready:
            return "starting"
        return "running" if generation.orders.listening else "drained"

    def drain(self) -> Mapping[str, Any]:
        """Take no more mail, and go on delivering what there is, until a reload or the end."""
        if self.supervisor.stopping or self.reloading.under_way:
            raise MailsecError(f"it is {self.state} just now", hint="mailsec status tells when that is over")
        _log.warning("draining: no more mail is taken", pid=os.getpid())
        self.supervisor.pause()
        self.reloading.ports.close()
        return {"state": self.state}

    def _all(self, word: str) -> Mapping[str, Any]:
        self.supervisor.serving.tell(do=word)
        return {"workers": len(self.supervisor.serving.workers)}

    async def _login(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """A PIN that somebody has typed, in base64; none: at the pin pad."""
        token, pin = question.get("token"), question.get("pin")
        if not isinstance(token, str) or not isinstance(pin, str | None):
            raise UsageError("a login needs the name of a token", hint='{"do": "token-login", "token": NAME, "pin": BASE64}')
        if self.supervisor.hosts is None:
            raise MailsecError("no PKCS#11 module is in use")
        try:
            octets = None if pin is None else base64.b64decode(pin, validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("the PIN is not base64") from None
        return {"module": await self.supervisor.hosts.login(token, octets)}
