"""`mailsec cms parse`: what a CMS object consists of. Nothing is checked or opened."""

from __future__ import annotations

from typing import Any

import click

from mailsec.app.output import Output, json_option

__all__ = ["parse"]


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--form", type=click.Choice(["auto", "smime", "eml", "cms-der", "cms-pem"]), default="auto", show_default=True, help="What FILE is."
)
@click.pass_obj
def parse(output: Output, *, file: str, form: str) -> int:
    """Show type and structure of the CMS object in FILE, or of the first one in a message."""
    from mailsec.app.messages import read_cms
    from mailsec.cms.structure import describe

    value = describe(read_cms(file, "smime" if form == "eml" else form))
    output.result(value, lambda: _tell(output, value, 0))
    return 0


def _tell(output: Output, value: dict[str, Any], depth: int) -> None:
    blanks = "  " * depth
    for name, item in value.items():
        title = name.replace("_", " ")
        if isinstance(item, dict):
            output.text(f"{blanks}{title}:")
            _tell(output, item, depth + 1)
        elif isinstance(item, list) and any(isinstance(one, dict) for one in item):
            for number, one in enumerate(item, 1):
                output.text(f"{blanks}{title} {number}:")
                _tell(output, one, depth + 1)
        elif item is not None and item != []:
            output.text(f"{blanks}{title}: {', '.join(map(str, item)) if isinstance(item, list) else item}")
