"""From a TOML file to a checked `Configuration`, or to all mistakes at once, each with its line.

Sections are validated one by one, so that a mistake in one does not hide those in another. `load_configuration` looks at nothing but
the file itself; `app.config.surroundings` looks at files, database and plugins.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from mailsec.app.config import models, people
from mailsec.app.config.base import beside
from mailsec.app.config.lines import Path, key_lines
from mailsec.app.config.problems import ConfigurationErrors, Problem, closest, located, near
from mailsec.app.config.semantics import find_problems
from mailsec.app.files import reason_of
from mailsec.errors import ConfigurationError

__all__ = ["Configuration", "describe", "load_configuration", "read_configuration", "read_text", "run_directory_of"]

S = TypeVar("S", bound=models.Section)

_CONFIGURATION_OCTETS = 4 * 1024 * 1024

SECTIONS: dict[str, type[models.Section]] = {
    "gateway": models.Gateway,
    "database": models.Database,
    "listener": models.Listener,
    "authenticator": people.Authenticator,
    "recipients": people.Recipients,
    "tls": models.Tls,
    "module": models.Module,
    "passphrase": models.Passphrase,
    "trust": models.Trust,
    "revocation": models.Revocation,
    "rule": models.Rule,
    "relay": models.Relay,
    "spool": models.Spool,
    "log": models.Log,
    "metrics": models.Metrics,
    "plugins": models.Plugins,
}
"""Every section but [plugin.NAME], in the order in which the commented configuration shows them."""

LISTS = frozenset({"authenticator", "listener", "module", "rule"})
"""Sections that are written [[so]] and may stand more than once."""

_SECRET_NAMES = frozenset({"password", "passphrase", "pass_phrase", "pin", "secret", "passwd"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """One configuration file, valid in itself."""

    path: str
    gateway: models.Gateway
    database: models.Database
    listeners: tuple[models.Listener, ...]
    tls: models.Tls
    passphrase: models.Passphrase
    trust: models.Trust
    revocation: models.Revocation
    rules: tuple[models.Rule, ...]
    relay: models.Relay
    spool: models.Spool
    log: models.Log
    metrics: models.Metrics
    plugins: models.Plugins
    modules: tuple[models.Module, ...] = ()
    authenticators: tuple[people.Authenticator, ...] = ()
    recipients: people.Recipients = field(default_factory=people.Recipients)
    plugin_tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lines: Mapping[Path, int] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)
    """The file as it was read."""

    def errors(self, problems: Sequence[Problem], consequence: str = "nothing was started") -> ConfigurationErrors:
        """Problems found later, as errors with file and line."""
        return ConfigurationErrors(located(self.path, dict(self.lines), problems), consequence)


def load_configuration(path: str, text: str | None = None) -> Configuration:
    """The configuration in the file `path` (or in `text`, which was read from there); raise ConfigurationErrors with all that is wrong."""
    configuration, problems, lines = read_configuration(path, text)
    if problems or configuration is None:
        raise ConfigurationErrors(located(path, lines, problems))
    return configuration


def read_configuration(path: str, text: str | None = None) -> tuple[Configuration | None, list[Problem], dict[Path, int]]:
    """The configuration (None where a section cannot be read), what is wrong with it, and the lines of its keys."""
    if text is None:
        text = read_text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from error
    lines = key_lines(text)
    problems: list[Problem] = []
    context = beside(path)
    sections: dict[str, Any] = {}
    for name in document:
        if name not in SECTIONS and name != "plugin":
            problems.append(Problem((name,), "there is no such section", near(name, [*SECTIONS, "plugin"])))
    for name, model in SECTIONS.items():
        value = document.get(name, [] if name in LISTS else {})
        if name in LISTS:
            sections[name] = _entries(model, name, value, context, problems)
        else:
            sections[name] = _section(model, (name,), value, context, problems)
    plugin_tables = _plugin_tables(document.get("plugin", {}), problems)
    readable = not problems

    # What is valid is checked further even where something else is not: all mistakes are told at once.
    # An entry of which something could not be read is not blamed, as a whole, for what is missing there.
    unread = {problem.path[:2] for problem in problems}
    problems.extend(problem for problem in find_problems(sections, plugin_tables) if problem.path not in unread)
    if not readable:
        return None, problems, lines
    configuration = Configuration(
        path=path,
        listeners=tuple(sections.pop("listener")),
        rules=tuple(sections.pop("rule")),
        modules=tuple(sections.pop("module")),
        authenticators=tuple(sections.pop("authenticator")),
        plugin_tables=plugin_tables,
        lines=lines,
        text=text,
        **sections,
    )
    return configuration, problems, lines


def run_directory_of(path: str) -> str:
    """The run directory that a configuration names, though something else in it may be wrong; "" where that cannot be read."""
    try:
        section = tomllib.loads(read_text(path)).get("gateway", {})
        return models.Gateway.model_validate(section, context=beside(path)).run_directory
    except (ConfigurationError, tomllib.TOMLDecodeError, ValidationError):
        return ""


def read_text(path: str) -> str:
    """The file as text; raise ConfigurationError where it cannot be read, or is none."""
    try:
        with FilePath(path).open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_CONFIGURATION_OCTETS + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {reason_of(error)}", hint=_hint_for(path, error), stage="configuration") from error
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
        # Attack: whoever has an account here says where mail goes, and what is loaded, at the next reload.
        raise ConfigurationError(f"everybody may write to {path}", hint=f"chmod o-w {path}", stage="configuration")
    if len(data) > _CONFIGURATION_OCTETS:
        raise ConfigurationError(f"{path} is larger than {_CONFIGURATION_OCTETS} octets", stage="configuration")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationErrors([ConfigurationError(f"{path}:{line}: not UTF-8, as TOML must be", stage="configuration")]) from error


def _hint_for(path: str, error: OSError) -> str:
    """What to do where a configuration cannot be read."""
    if isinstance(error, IsADirectoryError):
        return f"-c {FilePath(path) / 'mailsec.toml'}" if (FilePath(path) / "mailsec.toml").exists() else "-c names the file in it"
    if isinstance(error, PermissionError):
        return f"only its owner and the user that mailsec runs as may read it; you are user {os.geteuid()}: use sudo"
    return '"mailsec init DIR" writes one; -c says where it is'


def _syntax_error(path: str, text: str, error: tomllib.TOMLDecodeError) -> ConfigurationErrors:
    message, _, place = str(error).partition(" (at ")
    if (twice := re.fullmatch(r"Cannot declare \((.*?),?\) twice", message)) is not None:
        message = f"[{'.'.join(word.strip(' ') for word in twice.group(1).replace(chr(39), '').split(','))}] stands twice"
    found = re.match(r"line (\d+)", place)
    line = int(found.group(1)) if found else text.count("\n") + 1
    return ConfigurationErrors(
        [
            ConfigurationError(
                f"{path}:{line}: not TOML: {message[:1].lower()}{message[1:]}", hint="see https://toml.io", stage="configuration"
            )
        ]
    )


def _section(model: type[S], path: Path, value: Any, context: Mapping[str, Any], problems: list[Problem]) -> S | None:
    if not isinstance(value, dict):
        name = path[0]
        problems.append(Problem(path, "must be a section", f"write [[{name}]]" if name in LISTS else f"write [{name}]"))
        return None
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems.extend(describe(model, path, detail) for detail in details)
    return _repair(model, value, details, context)


def _repair(model: type[S], value: Mapping[str, Any], details: Sequence[Any], context: Mapping[str, Any]) -> S | None:
    """The section without what is wrong (misspelt names put right), so that the rest of it is checked as well; None where that is too little."""
    rest = dict(value)
    for detail in details:
        name = detail["loc"][0] if detail["loc"] else ""
        removed = rest.pop(name, None)
        if len(detail["loc"]) != 1:
            continue
        if detail["type"] == "extra_forbidden":
            meant = closest(str(name), list(model.model_fields))
            if meant and meant not in rest:
                rest[meant] = removed
        elif detail["type"] == "literal_error" and isinstance(removed, str):
            meant = closest(removed, _words(detail))
            if meant:
                rest[name] = meant
    try:
        return model.model_validate(rest, context=context)
    except ValidationError:
        return None


def _entries(model: type[S], name: str, value: Any, context: Mapping[str, Any], problems: list[Problem]) -> list[S | None]:
    if not isinstance(value, list):
        problems.append(Problem((name,), "may stand more than once", f"write [[{name}]], with two brackets"))
        return [None]
    return [_section(model, (name, index), entry, context, problems) for index, entry in enumerate(value)]


def _plugin_tables(value: Any, problems: list[Problem]) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict):
        problems.append(Problem(("plugin",), "must be a section", "write [plugin.NAME]"))
        return {}
    tables = {}
    for name, table in value.items():
        if isinstance(table, dict):
            tables[name] = table
        else:
            problems.append(
                Problem(("plugin", name), "must be a section", "write [plugin.NAME]; the plugins themselves stand in [plugins]")
            )
    return tables


# -- pydantic's errors in our words -----------------------------------------------------------------------------------------------

_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def describe(model: type[BaseModel], path: Path, detail: Any) -> Problem:
    """One of pydantic's errors about the section at `path`, in our words."""
    steps: Path = tuple(detail["loc"])
    where = (*path, *steps)
    kind: str = detail["type"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    if kind == "extra_forbidden":
        name = str(steps[-1])
        known = _names_at(model, steps[:-1])
        if name in _SECRET_NAMES or name.replace("-", "_") in _SECRET_NAMES:
            setting = f"{name}_file" if f"{name}_file" in known else "file" if "file" in known else ""
            hint = f'name a file with "{setting}"' if setting else 'see "[passphrase]"'
            return Problem(where, "secrets do not stand in the configuration", hint)
        return Problem(where, "there is no such setting", near(name, known))
    if kind == "missing":
        example = _example(model, steps)
        return Problem(where, "is missing", f"for example: {steps[-1]} = {example}" if example else "")
    if kind == "literal_error":
        words = _words(detail)
        shown = ", ".join(f'"{word}"' for word in words)
        value = detail["input"]
        # The message lists the words; the hint only guesses.
        meant = closest(value, words) if isinstance(value, str) else ""
        hint = f'did you mean "{meant}"?' if meant else ""
        return Problem(where, f"must be one of {shown}, and is {_shown(value)}", hint)
    if kind in _EXPECTED:
        return Problem(where, f"must be {_EXPECTED[kind]}, and is {_shown(detail['input'])}")
    bounds = {
        "greater_than_equal": ("ge", "at least"),
        "greater_than": ("gt", "more than"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "less than"),
    }
    if kind in bounds:
        key, words_ = bounds[kind]
        return Problem(where, f"must be {words_} {context.get(key):g}, and is {_shown(detail['input'])}")
    if kind == "finite_number":
        return Problem(where, f"must be a number with an end, and is {_shown(detail['input'])}")
    if kind == "string_too_short":
        return Problem(where, "is empty")
    message = str(detail["msg"])
    return Problem(where, message[:1].lower() + message[1:])


def _words(detail: Any) -> list[str]:
    """The words that a literal may be."""
    return [word.strip("' ") for word in re.split(r",| or ", str(detail.get("ctx", {}).get("expected", "")))]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _submodel(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _submodel(argument)
        if found is not None:
            return found
    return None


def _model_at(model: type[BaseModel], steps: Path) -> type[BaseModel]:
    for step in steps:
        if isinstance(step, str) and step in model.model_fields:
            model = _submodel(model.model_fields[step].annotation) or model
    return model


def _names_at(model: type[BaseModel], steps: Path) -> list[str]:
    return list(_model_at(model, steps).model_fields)


def _example(model: type[BaseModel], steps: Path) -> str:
    examples = {
        "hostname": '"gw.example.org"',
        "domains": '["example.org"]',
        "address": '"0.0.0.0:25"',
        "origin": '"internet"',
        "next_hop": '"smtp://mail.example.org:25"',
        "name": '"everybody signs"',
        "to": '"smtp://mail.example.org:25"',
    }
    return examples.get(str(steps[-1]), "") if _model_at(model, steps[:-1]) else ""
