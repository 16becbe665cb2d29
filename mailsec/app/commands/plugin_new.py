"""`mailsec plugin new NAME`: a small package that works, with a test that passes, to begin a plugin with."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from mailsec.app.files import reason_of
from mailsec.app.output import Output, json_option
from mailsec.errors import MailsecError, UsageError
from mailsec.plugins import ENTRY_POINT_GROUP

__all__ = ["KINDS", "new"]

KINDS: Final = {
    "tcp": "A protocol of one's own for [[listener]] service",
    "revocation": "A source of OCSP responses or revocation lists",
    "directory": "A place to look up correspondents' certificates",
    "accelerator": "An engine for public-key operations",
    "policy": "Findings about messages, and what is to happen to them",
}
"""What there is, and what it is for."""

_EXAMPLES: Final = {
    "tcp": '\n[[listener]]\naddress = "127.0.0.1:10060"\nservice = "@NAME@"\n',
    "revocation": '\n[plugin.@NAME@]\nlists = { "CN=Example CA" = "http://lists.example.org/ca.crl" }\n',
    "directory": '\n[plugin.@NAME@]\ndirectory = "/etc/mailsec/correspondents"\n',
    "accelerator": "",
    "policy": '\n[plugin.@NAME@]\naction = "hold"\n',
}
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*\Z")


@json_option
@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), default="policy", show_default=True, help="What the plugin brings.")
@click.option("-o", "--output", "directory", metavar="DIR", default="", help="Where it is written  [default: ./mailsec-NAME]")
@click.pass_obj
def new(output: Output, name: str, kind: str, directory: str) -> None:
    """Write a small plugin called NAME, with a passing test (docs/write-a-plugin.md)."""
    if not _NAME.match(name) or len(name) > 40:
        raise UsageError(
            f"{name!r} cannot be the name of a plugin", hint="small letters, digits and hyphens, such as greylist or my-directory"
        )
    # Imported here: only this command needs what is built in.
    from mailsec.app.assembly import BUILT_IN

    if name in BUILT_IN or any(point.name == name for point in entry_points(group=ENTRY_POINT_GROUP)):
        raise UsageError(f"there is a plugin called {name} already", hint="`mailsec plugins` lists them; choose another name")
    place = Path(directory or f"mailsec-{name}")
    module = f"mailsec_{name.replace('-', '_')}"
    words = {
        "@NAME@": name,
        "@MODULE@": module,
        "@CLASS@": "".join(part.capitalize() for part in re.split("[-_]", name)),
        "@WHAT@": KINDS[kind],
    }
    templates = files("mailsec.app") / "plugin_kinds"
    contents = {
        "pyproject.toml": (templates / "pyproject.toml.txt").read_text("utf-8"),
        "README.md": (templates / "README.md.txt").read_text("utf-8").replace("@EXAMPLE@", _EXAMPLES[kind]),
        f"{module}/__init__.py": '"""@WHAT@."""\n',
        f"{module}/py.typed": "",
        f"{module}/plugin.py": (templates / kind / "plugin.py.txt").read_text("utf-8"),
        "tests/test_plugin.py": (templates / kind / "test_plugin.py.txt").read_text("utf-8"),
    }
    written = []
    try:
        # What somebody has written already is never touched.
        place.mkdir(parents=True)
        for path, text in contents.items():
            for sign, word in words.items():
                text = text.replace(sign, word)
            file = place / path
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            written.append(path)
    except FileExistsError as error:
        raise UsageError(f"{place} is there already", hint="choose another name, or another directory with -o") from error
    except OSError as error:
        raise MailsecError(f"{place} cannot be written: {reason_of(error)}", hint="choose another directory with -o") from error

    def say() -> None:
        output.text(f"{place}: {KINDS[kind][0].lower()}{KINDS[kind][1:]}")
        output.text("\n".join(f"    {path}" for path in written))
        output.text(f'\nNow: cd {place} && pip install --editable . && pytest; then enable it: [plugins] enabled = ["{name}"]')

    output.result({"plugin": name, "kind": kind, "directory": str(place), "files": written}, say)
