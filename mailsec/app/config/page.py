"""`docs/settings.md`, written from the models: every setting as a row of a table. A test compares.

python -m mailsec.app.config.page > docs/settings.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticUndefined

from mailsec.app.config.load import LISTS, SECTIONS
from mailsec.app.config.models import Hop, Section, Upstream
from mailsec.app.config.render import toml

__all__ = ["page"]

_ABOUT = """\
# Settings

One TOML file, `/etc/mailsec/mailsec.toml` where no other is named. [conf/mailsec.toml](../conf/mailsec.toml) is the same as a commented file,
[deploy.md](deploy.md) has whole ones, each for a place. `mailsec check` finds every mistake at once, with
file, line and hint. Paths are relative to the directory of the file. Secrets do not stand in it: settings name files with them.

This page is written from the models in `mailsec/app/config/models.py`.
"""


def page() -> str:
    """The whole page."""
    lines = [_ABOUT]
    for name, model in SECTIONS.items():
        lines += _section(f"[[{name}]]" if name in LISTS else f"[{name}]", model)
        for setting, inner in _nested(model):
            lines += _section(f"`{setting}` of [[{name}]]" if name in LISTS else f"`{setting}` of [{name}]", inner)
        if name == "listener":
            lines += _section("An upstream: `{ to = … }`", Upstream)
        if name == "relay":
            lines += _section("A next hop: `{ to = … }`", Hop)
    lines += ["## [plugin.NAME]\n", "Settings of an enabled plugin; its documentation lists them.\n"]
    return "\n".join(lines)


def _section(title: str, model: type[Section]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{_text(inspect.getdoc(model))}\n"
    yield "| setting | default | what it is |"
    yield "| --- | --- | --- |"
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {_default(field)} | {_text(field.description)} |"
    yield ""


def _nested(model: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section) and field.annotation not in (Hop, Upstream):
            yield name, field.annotation


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or isinstance(default, Section):
        return ""
    return f"`{toml(default)}`"


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
