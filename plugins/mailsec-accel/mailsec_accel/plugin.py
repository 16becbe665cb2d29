"""The plugin "accel": an engine in front of the built-in one, and a task that tests its tokens and tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mailsec.errors import KeyUnavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import CryptoBackend, Gateway, Task
from mailsec.keys.software import SoftwareBackend
from mailsec.model.settings import Problem
from mailsec.model.verdict import Event
from mailsec_accel.accelerator import Accelerator
from mailsec_accel.backend import AcceleratedBackend
from mailsec_accel.settings import AccelSettings

__all__ = ["AccelPlugin"]

_LOOKED: Final = 1.0
_TOLD: Final = 3600.0
"""Seconds between two lines of the log about how the tokens do."""


class AccelPlugin:
    """What the entry point names."""

    def __init__(self) -> None:
        self._software = SoftwareBackend()
        self._accelerators: tuple[Accelerator, ...] = ()
        self._task: Task[None] | None = None

    @hookimpl
    def register_config_models(self) -> Mapping[str, type]:
        """`[plugin.accel]`."""
        return {"accel": AccelSettings}

    @hookimpl
    def register_crypto_backends(self, gateway: Gateway) -> Iterable[CryptoBackend]:
        """The engine; none where no module is enabled. Tokens are not looked for before they are tested."""
        settings = gateway.settings.plugins.get("accel")
        settings = settings if isinstance(settings, AccelSettings) else AccelSettings()
        self._accelerators = tuple(
            Accelerator(
                f"{one.module}:{one.token}",
                one.token,
                tuple(one.mechanisms),
                lambda module=one.module: gateway.token(module),  # type: ignore[misc]
                deadline=settings.deadline,
                retry=settings.retry,
            )
            for one in settings.modules
            if one.enabled
        )
        if not self._accelerators:
            return []
        runtime = gateway.runtime
        return [
            AcceleratedBackend(
                self._software, self._accelerators, random=runtime.random, monotonic=runtime.monotonic, confirm=settings.confirm
            )
        ]

    @hookimpl
    def check_configuration(self, gateway: Gateway) -> Iterable[Problem]:
        """Whether there is a `[[module]]` of each name. Which tokens are there is seen when they are tested."""
        settings = gateway.settings.plugins.get("accel")
        for index, one in enumerate(settings.modules if isinstance(settings, AccelSettings) else ()):
            try:
                if one.enabled:
                    gateway.token(one.module)
            except KeyUnavailable as error:
                yield Problem(("modules", index, "module"), error.message, error.hint)

    @hookimpl
    def startup(self, gateway: Gateway) -> None:
        """Test the tokens beside everything else; until they have passed, software computes."""
        if self._accelerators:
            self._task = gateway.runtime.start(self._look_after(gateway), "accelerators")

    @hookimpl
    def shutdown(self, gateway: Gateway) -> None:
        """Tell how they did."""
        if self._task is not None:
            self._task.cancel()
            self._tell(gateway, "accelerator was used", *(one.report() for one in self._accelerators))

    async def _look_after(self, gateway: Gateway) -> None:
        runtime = gateway.runtime
        told = runtime.monotonic()
        while True:
            for one in self._accelerators:
                for kind in one.due(runtime.monotonic()):
                    await runtime.in_thread(one.test, kind, self._software, runtime.random, runtime.monotonic())
                while one.changes:
                    event, kind, reason = one.changes.popleft()
                    self._tell(gateway, event, {"accelerator": one.name, "kind": kind, "reason": reason})
            if runtime.monotonic() >= told + _TOLD:
                told = runtime.monotonic()
                self._tell(gateway, "accelerator was used", *(one.report() for one in self._accelerators))
            await runtime.sleep(_LOOKED)

    def _tell(self, gateway: Gateway, event: str, *fields: Mapping[str, Any]) -> None:
        for one in fields:
            gateway.record(Event(event, gateway.runtime.now(), one))
