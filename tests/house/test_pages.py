"""Pages tell the truth: their commands and options exist, every command is told of, every page can be reached, settings are the models'."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from mailsec.app.cli import COMMANDS, GROUPS, SECTIONS, root
from mailsec.app.config.page import page
from mailsec.app.output import Output
from mailsec.plugins import ENTRY_POINT_GROUP

PROJECT = Path(__file__).resolve().parent.parent.parent
PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((PROJECT / "docs").rglob("*.md"))
PAGES += sorted((PROJECT / "plugins").glob("*/README.md"))


def command_lines() -> list[tuple[str, str]]:
    """Every line of code in our pages that calls mailsec, with its page."""
    found = []
    for source in PAGES:
        for line in re.findall(r"^ {4}(mailsec .*)$", source.read_text(), re.MULTILINE):
            found.append((source.name, line.partition("  #")[0].strip()))
    return found


@pytest.mark.parametrize(("source", "line"), command_lines(), ids=lambda value: value)
def test_a_command_of_our_pages_exists_with_its_options(source: str, line: str):
    words = shlex.split(line)[1:]
    command: click.Command = root()
    context = click.Context(command, info_name="mailsec", obj=Output())
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, f"{source}: {line}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    if not isinstance(command, click.Group):
        command.make_parser(context).parse_args(list(words))  # raises for an option that it does not have


@pytest.mark.parametrize("mention", sorted(set(re.findall(r"`mailsec ([a-z0-9]+(?: [a-z]+)?)", "".join(one.read_text() for one in PAGES)))))
def test_a_command_that_our_pages_mention_exists(mention: str):
    first = mention.split(" ")[0]
    plugins = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    assert mention in COMMANDS or first in COMMANDS or mention in GROUPS or first in plugins, f"there is no mailsec {mention}"


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_every_command_is_listed_with_a_line_and_under_a_heading(name: str):
    if name in COMMANDS:
        assert COMMANDS[name][1], name
    assert any(name.split(" ")[0] in names for names in SECTIONS.values()), f"{name} stands under no heading of mailsec --help"
    if " " in name:
        assert name.split(" ")[0] in GROUPS


@pytest.mark.parametrize("top", sorted({name.split(" ")[0] for name in COMMANDS}))
def test_every_command_is_told_of_in_our_pages(top: str):
    assert any(re.search(rf"mailsec {top}\b|`{top}[` ]|^## {top}\b", source.read_text(), re.MULTILINE) for source in PAGES), top


def test_every_page_is_linked():
    """From README, or from a page that is."""
    reached, waiting = set(), [PROJECT / "README.md"]
    while waiting:
        source = waiting.pop()
        if source in reached or source.suffix != ".md":
            reached.add(source)
            continue
        reached.add(source)
        for target in re.findall(r"\]\(([^)#:]+)\)", source.read_text()):
            waiting.append((source.parent / target).resolve())
    for path in sorted(one for one in (PROJECT / "docs").rglob("*") if one.is_file()):
        assert path in reached, f"{path.name} is linked from nowhere"


@pytest.mark.parametrize("source", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(source: Path):
    for target in re.findall(r"\]\(([^)#:]+)\)", source.read_text()):
        assert (source.parent / target).exists(), f"{source.name} links to {target}"


@pytest.mark.parametrize("source", PAGES, ids=lambda path: path.name)
def test_targets_of_make_exist(source: Path):
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^ {4}|`)make ([a-z]+)", source.read_text(), re.MULTILINE):
        assert target in targets, f"{source.name}: make {target}"


def test_the_page_of_settings_is_written_from_the_models():
    assert (PROJECT / "docs" / "settings.md").read_text() == page(), "run: python -m mailsec.app.config.page > docs/settings.md"


def test_hints_name_commands_that_exist():
    """A hint that says "mailsec crl fetch" where there is none costs more than no hint."""
    known = set(COMMANDS) | set(GROUPS)
    for source in sorted((PROJECT / "mailsec").rglob("*.py")):
        for line in source.read_text().splitlines():
            if "hint" not in line and "Reason(" not in line:
                continue
            for mention in re.findall(r"""[`"']mailsec ([a-z0-9]+(?: [a-z]+)?)""", line):
                if mention.startswith("is "):  # "mailsec is running already"
                    continue
                assert mention in known or mention.split(" ")[0] in COMMANDS, f"{source.relative_to(PROJECT)}: mailsec {mention}"
