"""From names to plugins: entry points, single files, and what is refused at start-up.

The one invariant: nothing that is not enabled is imported; and a file is imported only where nobody but root could have written it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from mailsec import hookspecs
from mailsec.errors import ConfigurationError
from mailsec.hookspecs import ASYNC_HOOKS
from mailsec.plugins.answers import Implementation, first_line
from mailsec.plugins.files import find_files, import_file

__all__ = ["ENTRY_POINT_GROUP", "HOOKS", "checked", "complaint", "hint_for", "import_plugins"]

ENTRY_POINT_GROUP = "mailsec"

HOOKS: Mapping[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and hasattr(function, "mailsec_spec")
}
"""Every hook with the names of its parameters, in the order in which mailsec calls them."""


def import_plugins(names: Sequence[str], paths: Sequence[str] = ()) -> list[tuple[str, object]]:
    """The plugins called `names`, from entry points and from files NAME.py in `paths`; no other is imported. Raise ConfigurationError."""
    if not names:
        return []
    installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    files = find_files(paths)
    found: list[tuple[str, object]] = []
    for name in names:
        if name in installed and name in files:
            raise ConfigurationError(
                f"there are two plugins called {name}: {files[name]} and an installed one", hint="rename the file, or uninstall the other"
            )
        if name in files:
            found.append((name, import_file(name, files[name])))
        else:
            found.append((name, _import(name, installed, [*installed, *files])))
    return found


def _import(name: str, installed: Mapping[str, Any], known: Sequence[str]) -> object:
    point = installed.get(name)
    if point is None:
        near = difflib.get_close_matches(name, known, 1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else "install its distribution into this environment, or name its directory in [plugins] path"
        )
        raise ConfigurationError(f"no plugin is called {name}", hint=hint)
    try:
        plugin = point.load()
        return plugin() if inspect.isclass(plugin) else plugin
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"plugin {name} cannot be imported: {type(error).__name__}: {first_line(error)}", hint="reinstall or disable it"
        ) from error


def checked(hook: str, implementation: Any) -> Implementation:
    """One implementation as pluggy read it; refuse what our calls would mishandle."""
    name, function = implementation.plugin_name, implementation.function
    if implementation.hookwrapper or implementation.wrapper:
        raise ConfigurationError(f"plugin {name}: {hook} is a hook wrapper", hint="hooks of mailsec take plain implementations only")
    if hook not in ASYNC_HOOKS and _is_async(function):
        raise ConfigurationError(
            f"plugin {name}: {hook} is async, and the hook is synchronous",
            hint="return an object with async methods from a register_ hook, and do the waiting there",
        )
    return Implementation.of(name, hook, function, tuple(implementation.argnames))


def _is_async(function: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(function)
    # a partial, and an object whose class defines __call__, hide the function that is run
    candidates = (function, inner, getattr(inner, "func", None), vars(type(inner)).get("__call__"))
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in candidates if one is not None
    ) or _returns_awaitable(inner)


def _returns_awaitable(function: Callable[..., Any]) -> bool:
    """True where the signature itself says that it returns something to await."""
    annotation = getattr(function, "__annotations__", {}).get("return")
    return annotation in (Awaitable,) or (isinstance(annotation, str) and annotation.startswith(("Awaitable[", "Coroutine[")))


def complaint(error: BaseException) -> str:
    """What pluggy complains of, on one line: its last line where there are several (the ones before quote the definition)."""
    lines = str(error).strip().splitlines()
    return lines[-1] if len(lines) < 2 else f"{lines[0]}: {lines[-1]}"


def hint_for(text: str) -> str:
    """The hook that was probably meant by the misspelt one that pluggy's message names."""
    for word in text.replace("'", " ").replace('"', " ").split():
        near = difflib.get_close_matches(word, HOOKS, 1, 0.75)
        if near and near[0] != word:
            return f"did you mean {near[0]}({', '.join(HOOKS[near[0]])})?"
        if word in HOOKS:
            return f"the hook is {word}({', '.join(HOOKS[word])})"
    return "docs/hooks.md lists every hook with its parameters"
