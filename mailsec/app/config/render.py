"""The commented configuration, written from the models: every setting with its meaning and its default.

`conf/mailsec.toml` is `render(EXAMPLE)`, and `mailsec init` writes `render` of what it chose. A setting that keeps its default is
commented out.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticUndefined

from mailsec.app.config.load import LISTS, SECTIONS
from mailsec.app.config.models import Section

__all__ = ["EXAMPLE", "render", "toml"]

WIDTH = 110

EXAMPLE: Mapping[str, Any] = {
    "gateway": {
        "hostname": "gw.example.org",
        "domains": ["example.org"],
        "run_directory": "/run/mailsec",
        "state_directory": "/var/lib/mailsec/state",
    },
    "database": {"location": "/var/lib/mailsec/mailsec.db"},
    "listener": [
        {"address": "0.0.0.0:587", "origin": "submission", "tls": "starttls-required", "certificate": "Server-Cert"},
        {"address": "127.0.0.1:10025", "origin": "trusted", "senders": ["@example.org"]},
        {"address": "0.0.0.0:25", "origin": "internet", "tls": "starttls", "certificate": "Server-Cert"},
    ],
    "passphrase": {"method": "file", "file": "/etc/mailsec/passphrase"},
    "rule": [
        {"name": "board", "match": {"sender": ["ceo@example.org", "cfo@example.org"]}, "sign": "required", "failure": "hold"},
        {"name": "everybody", "sign": "if-possible"},
    ],
    "relay": {"next_hop": "smtp://[127.0.0.1]:10026", "routes": {"example.org": "lmtp:unix:/run/dovecot/lmtp"}},
    "spool": {"directory": "/var/lib/mailsec/spool"},
}
"""A gateway in front of a mail store: the values of `conf/mailsec.toml`."""

_ABOUT = """\
mailsec's configuration. "mailsec check -c FILE" finds every mistake in it at once.

What stands behind a "#" is the default. Paths are relative to the directory of this file. Secrets do not
stand here: settings name files with them. mailsec never changes this file."""


def render(values: Mapping[str, Any], about: str = _ABOUT) -> str:
    """A whole configuration with `values` (section to settings) set, and everything else explained."""
    lines = [*_comment(about), ""]
    for name, model in SECTIONS.items():
        if name in LISTS:
            lines += _several(name, model, values.get(name, ()))
        else:
            lines += ["", *_comment(inspect.getdoc(model) or ""), f"[{name}]", "", *_settings(model, values.get(name, {}))]
    lines += ["", *_comment("Settings of a plugin stand in a section of its own, [plugin.NAME]; its documentation lists them.")]
    return "\n".join(lines).rstrip("\n") + "\n"


def _several(name: str, model: type[Section], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A section that may stand more than once: its settings are explained once, then each entry has only what it sets."""
    lines = ["", *_comment(inspect.getdoc(model) or ""), *_comment(f"[[{name}]] may stand more than once. Its settings:"), "#"]
    for setting, field in model.model_fields.items():
        default = _default(field)
        nested = _nested(field)
        shown = "" if nested or default is PydanticUndefined else f" (default: {toml(default)})"
        lines += textwrap.wrap(
            f"{setting}: {' '.join((field.description or '').split())}{shown}", WIDTH, initial_indent="#   ", subsequent_indent="#     "
        )
        for inner, detail in nested.items():
            lines += textwrap.wrap(f"{inner}: {detail}", WIDTH, initial_indent="#       ", subsequent_indent="#         ")
    for entry in entries:
        lines += ["", f"[[{name}]]", *(f"{setting} = {toml(value)}" for setting, value in entry.items())]
    return [*lines, ""]


def _nested(field: Any) -> Mapping[str, str]:
    inner = field.annotation
    if isinstance(inner, type) and issubclass(inner, Section):
        return {name: " ".join((detail.description or "").split()) for name, detail in inner.model_fields.items()}
    return {}


def _settings(model: type[Section], values: Mapping[str, Any]) -> list[str]:
    lines = []
    for setting, field in model.model_fields.items():
        lines += _comment(" ".join((field.description or "").split()))
        if setting in values:
            lines.append(f"{setting} = {toml(values[setting])}")
        else:
            default = _default(field)
            assert default is not PydanticUndefined, f"{setting} needs a value"
            lines.append(f"# {setting} = {toml(default)}")
        lines.append("")
    return lines


def _default(field: Any) -> Any:
    return field.get_default(call_default_factory=True)


def _comment(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        if lines:
            lines.append("#")
        lines += textwrap.wrap(" ".join(paragraph.split()), WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    return lines


def toml(value: Any) -> str:
    """`value` as TOML writes it (TOML 1.0), on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {toml(inner)}" for key, inner in value.items()) + " }" if value else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(toml, value)) + "]"
    # A basic string of TOML takes every escape that JSON writes, but DEL must be escaped as well.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if key and key.isascii() and key.replace("_", "").replace("-", "").isalnum() else toml(key)


if __name__ == "__main__":
    print(render(EXAMPLE), end="")
