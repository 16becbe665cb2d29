"""Whose code a module is: a plugin's, by the package that it came in. For whoever finds the reactor blocked and looks at the stack."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import FrameType

from mailsec.plugins.files import MODULE_PREFIX

__all__ = ["Origins"]


class Origins:
    """Made of the enabled plugins; built-in ones are mailsec itself."""

    def __init__(self, enabled: Iterable[tuple[str, object]]) -> None:
        self._plugins: dict[str, str] = {}
        for name, plugin in enabled:
            module = plugin.__name__ if inspect.ismodule(plugin) else getattr(plugin, "__module__", "") or ""
            top = module.partition(".")[0]
            if top and top != "mailsec":
                self._plugins.setdefault(top, name)

    def plugin_of(self, module: str) -> str:
        """The plugin whose code the module is; "" for everything else."""
        return self._plugins.get(module if module.startswith(MODULE_PREFIX) else module.partition(".")[0], "")

    def plugin_on(self, frame: FrameType | None) -> str:
        """The innermost plugin on a stack; "" where none is."""
        while frame is not None:
            found = self.plugin_of(str(frame.f_globals.get("__name__", "")))
            if found:
                return found
            frame = frame.f_back
        return ""
