"""`mailsec plugins`: which plugins there are, what each brings, and with `--order` who answers each hook.

Without a configuration it tells of the built-in ones and of what is installed; nothing that is not enabled is imported.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailsec.app.options import CONFIGURATION_HELP, DEFAULT_CONFIGURATION
from mailsec.app.output import Output, json_option
from mailsec.errors import UsageError

if TYPE_CHECKING:
    from mailsec.plugins import PluginManager

__all__ = ["plugins"]

_COLUMNS = 79


@json_option
@click.command()
@click.option("--order", is_flag=True, help="Who answers each hook, in the order of the calls.")
@click.option(
    "--on", "forgiven", metavar="NAME", default="", help="Switch a plugin on again that was switched off because it blocked workers."
)
@click.option("-c", "--config", "configuration", metavar="CONFIG", default="", help=CONFIGURATION_HELP)
@click.pass_obj
def plugins(output: Output, order: bool, forgiven: str, configuration: str) -> None:
    """List the plugins, and what each brings. They are trusted code: an enabled one runs with the rights of the gateway."""
    from mailsec.app.assembly import BUILT_IN
    from mailsec.app.config import load_configuration
    from mailsec.app.plugin_marks import PluginMarks
    from mailsec.plugins import ENTRY_POINT_GROUP, PluginManager, find_files

    path = configuration or (DEFAULT_CONFIGURATION if Path(DEFAULT_CONFIGURATION).exists() else "")
    loaded = load_configuration(path) if path else None
    enabled = list(loaded.plugins.enabled) if loaded is not None else []
    directories = list(loaded.plugins.path) if loaded is not None else []
    marks = PluginMarks(loaded.gateway.state_directory) if loaded is not None else None
    if forgiven:
        if marks is None or not marks.forgive(forgiven):
            raise UsageError(f"{forgiven} is not marked as a plugin that blocks workers", hint="`mailsec plugins` shows what is off")
        output.result({"plugins": [], "on": forgiven}, f"{forgiven} is on again when mailsec starts next")
        return
    off = marks.off(datetime.now(UTC)) if marks is not None else {}
    installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    files = find_files(directories)
    manager = PluginManager()
    for name, kind in BUILT_IN.items():
        # Only the names of their hooks are asked for: the classes themselves know them.
        manager.add(kind, name)
    manager.load(enabled, directories)
    settings = _settings(manager, enabled)
    states = {name: f"off: {off[name]}" if name in off else "enabled" for name in enabled}
    states |= dict.fromkeys(BUILT_IN, "built-in")
    states |= {name: "installed, not enabled" for name in (*installed, *files) if name not in states}
    found = [
        {
            "name": name,
            "state": state,
            "version": _version(installed.get(name)) if name not in BUILT_IN and name not in files else "",
            "source": BUILT_IN[name].__module__ if name in BUILT_IN else str(files[name]) if name in files else installed[name].value,
            # What is not enabled is not imported, so nobody knows what it would bring.
            "brings": [hook for hook, names in manager.order().items() if name in names],
            "settings": settings.get(name, []),
        }
        for name, state in states.items()
    ]
    hooks = {hook: list(names) for hook, names in manager.order().items()}

    def say() -> None:
        if order:
            output.table(["hook", "who answers, in order"], [[hook, ", ".join(names) or "nobody"] for hook, names in hooks.items()])
            return
        rows = [
            [str(one["name"]), str(one["state"]), str(one["version"]), ", ".join(_words(one["brings"])), str(one["source"])]
            for one in found
        ]
        output.table(["plugin", "state", "version", "brings", "where it is"], rows)
        for name, lines in settings.items():
            output.text(f"\n[plugin.{name}]")
            for one in lines:
                output.text(_as_configured(one["name"], one["default"], one["meaning"]))
        for name in off:
            output.warning(f"{name} is {states.get(name, 'off')}", f"mend it; `mailsec plugins --on {name}` switches it on again")
        output.text("\nPlugins are trusted code: an enabled one runs with the rights of the gateway. Enable them in [plugins].")

    output.result({"plugins": found, **({"hooks": hooks} if order else {})}, say)


def _version(point: EntryPoint | None) -> str:
    return point.dist.version if point is not None and point.dist is not None else ""


def _words(hooks: object) -> Sequence[str]:
    """Hooks for a table: "register_tcp_services" is "tcp services"."""
    assert isinstance(hooks, list)
    return [hook.removeprefix("register_").replace("_", " ") for hook in hooks if hook != "register_config_models"]


def _as_configured(name: str, default: str, meaning: str) -> str:
    """A setting as it would stand in the configuration, under what it means; lines fit a terminal of 80 columns."""
    lines = textwrap.wrap(meaning, _COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    value = f"{name} = {default}"
    if len(value) > _COLUMNS and default.startswith("["):
        items = textwrap.wrap(default[1:-1], _COLUMNS, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        return "\n".join([*lines, f"{name} = [", *items, "]"])
    return "\n".join([*lines, value])


def _settings(manager: PluginManager, enabled: Sequence[str]) -> Mapping[str, list[dict[str, str]]]:
    """The settings of enabled plugins, as their models document them."""
    from pydantic_core import PydanticUndefined

    from mailsec.app.config.render import toml

    found: dict[str, list[dict[str, str]]] = {}
    models: dict[str, Any] = dict(manager.providers("register_config_models")) if enabled else {}
    for name, model in models.items():
        found[name] = []
        for setting, field in model.model_fields.items():
            default = field.get_default(call_default_factory=True)
            shown = (
                "" if default is PydanticUndefined else toml(default) if not hasattr(default, "model_dump") else toml(default.model_dump())
            )
            found[name].append({"name": setting, "default": shown, "meaning": " ".join((field.description or "").split())})
    return found
