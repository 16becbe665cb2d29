"""`mailsec status`, `mailsec reload`, `mailsec drain`: a running mailsec is asked over its socket in the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from mailsec.app.options import config_option
from mailsec.app.output import Output, json_option, plural

__all__ = ["drain", "reload", "status"]

_RELOAD_SECONDS: Final = 600.0
_FIELDS: Final = frozenset({"ok", "error", "hint", "errors"})


@json_option
@click.command()
@config_option
@click.pass_obj
def status(output: Output, configuration: str) -> int:
    """Tell how a running mailsec is: its processes, ports and token hosts; exit code 1 unless it takes mail."""
    found = _asked(output, configuration, {"do": "status"})

    def draw() -> None:
        output.text(f"mailsec {found['version']} is {found['state']}: process {found['pid']}, up {_span(found['uptime'])}")
        output.text(f"{found['configuration']}, {_reloads(found)}; ports: {', '.join(found['ports']) or 'none'}")
        output.text()
        output.table(
            ("worker", "pid", "generation", "state", "up", "heard"),
            [
                (one["worker"], one["pid"], one["generation"], one["state"], _span(one["uptime"]), f"{_span(one['heard'])} ago")
                for one in found["workers"]
            ],
            empty="no worker runs",
        )
        if found["token_hosts"]:
            output.text()
            output.table(("module", "pid", "state"), [(one["module"], one["pid"] or "", one["state"]) for one in found["token_hosts"]])
        if found["deaths"]:
            output.text(f"{plural(found['deaths'], 'worker')} died and was replaced since the start: see the log")

    output.result(found, draw)
    return 0 if found["state"] in ("running", "reloading") else 1


@json_option
@click.command()
@config_option
@click.pass_obj
def reload(output: Output, configuration: str) -> None:
    """Bring the configuration as it is now into force, without losing a connection; where it is wrong, nothing changes."""
    found = _asked(output, configuration, {"do": "reload"}, seconds=_RELOAD_SECONDS)
    for note in found["notes"]:
        output.warning(note)
    text = f"generation {found['generation']} serves, with {plural(found['workers'], 'worker')}; sessions of the one before go on until they end"
    output.result(found, text)


@json_option
@click.command()
@config_option
@click.pass_obj
def drain(output: Output, configuration: str) -> None:
    """Take no more mail, and go on delivering what is there: before a machine is taken down. `mailsec reload` takes mail again."""
    found = _asked(output, configuration, {"do": "drain"})
    output.result(found, "no more mail is taken; mailsec queue list shows what is left, mailsec reload takes mail again")


def _asked(output: Output, configuration: str, question: Mapping[str, Any], *, seconds: float = 30.0) -> dict[str, Any]:
    """The answer of the mailsec that runs with `configuration`; what it refuses is raised as the error that it names."""
    from mailsec.app.config import load_configuration
    from mailsec.app.config.load import run_directory_of
    from mailsec.app.config.problems import ConfigurationErrors
    from mailsec.app.control_socket import ask
    from mailsec.errors import ConfigurationError, MailsecError

    try:
        directory = load_configuration(configuration).gateway.run_directory
    except ConfigurationErrors:
        # What is wrong in the file is for the running mailsec to say; where it runs can mostly be read all the same.
        directory = run_directory_of(configuration)
        if not directory:
            raise
    answer = ask(directory, question, seconds=seconds, progress=output.progress)
    if not answer["ok"]:
        if answer.get("errors"):
            wrong = [ConfigurationError(one["message"], hint=one["hint"], stage="configuration") for one in answer["errors"]]
            raise ConfigurationErrors(wrong, "nothing was changed")
        raise MailsecError(answer["error"], hint=answer.get("hint", ""))
    return {name: value for name, value in answer.items() if name not in _FIELDS}


def _reloads(found: Mapping[str, Any]) -> str:
    refused = f", {found['refused_reloads']} refused" if found["refused_reloads"] else ""
    return f"generation {found['generation']} ({plural(found['reloads'], 'reload')}{refused})"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.0f}s"
