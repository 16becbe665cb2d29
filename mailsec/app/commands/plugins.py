"""`mailsec plugins`: which plugins there are, which are asked, and with `--order` who answers each hook.

Without a configuration it tells of the built-in ones and of what is installed; nothing that is not enabled is imported.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import click

from mailsec.app.options import DEFAULT_CONFIGURATION
from mailsec.app.output import Output, json_option

__all__ = ["plugins"]


@json_option
@click.command()
@click.option("--order", is_flag=True, help="Who answers each hook, in the order of the calls.")
@click.option("-c", "--config", "configuration", metavar="CONFIG", default="", help=f"The configuration [{DEFAULT_CONFIGURATION}].")
@click.pass_obj
def plugins(output: Output, order: bool, configuration: str) -> None:
    """List the plugins. They are trusted code: an enabled one runs with the rights of the gateway."""
    from mailsec.app.assembly import BUILT_IN
    from mailsec.app.config import load_configuration
    from mailsec.plugins import ENTRY_POINT_GROUP, PluginManager

    path = configuration or (DEFAULT_CONFIGURATION if Path(DEFAULT_CONFIGURATION).exists() else "")
    enabled = list(load_configuration(path).plugins.enabled) if path else []
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    manager = PluginManager()
    for name, kind in BUILT_IN.items():
        # Only the names of their hooks are asked for: the classes themselves know them.
        manager.add(kind, name)
    manager.load(enabled)
    found = [
        *({"name": name, "state": "enabled", "source": installed.get(name, "")} for name in enabled),
        *({"name": name, "state": "built-in", "source": kind.__module__} for name, kind in BUILT_IN.items()),
        *({"name": name, "state": "installed, not enabled", "source": source} for name, source in installed.items() if name not in enabled),
    ]
    hooks = {hook: list(names) for hook, names in manager.order().items()}

    def say() -> None:
        if order:
            output.table(["hook", "who answers, in order"], [[hook, ", ".join(names) or "nobody"] for hook, names in hooks.items()])
        else:
            output.table(["plugin", "state", "where it is"], [[one["name"], one["state"], one["source"]] for one in found])
            output.text("\nPlugins are trusted code: an enabled one runs with the rights of the gateway. Enable them in [plugins].")

    output.result({"plugins": found, **({"hooks": hooks} if order else {})}, say)
