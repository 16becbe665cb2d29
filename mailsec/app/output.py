"""How commands answer: one JSON object, or text and tables; errors with their hints.

`--json` (add `@json_option`) makes `Output.result` print the one object that the command gives, with `"error": null`; where an error ends
the command it is the object `{"error": {"class", "stage", "message", "hint"}}`. Text for people goes to standard output, errors,
warnings and progress to standard error. What came from outside (names in certificates, header fields) is printed with its
control characters escaped: terminals obey escape sequences.

rich is imported only where a table is drawn on a terminal.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from mailsec.errors import MailsecError

__all__ = ["Output", "json_option", "plural", "printable"]

F = TypeVar("F", bound=Callable[..., Any])

RED, YELLOW, GREEN, DIM, BOLD, CYAN, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[0m"


def printable(text: object) -> str:
    """`text` with control, format and surrogate characters escaped: escape sequences, bidi overrides, stray octets."""
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else _escape(character)
        for character in string
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def plural(number: int, noun: str, several: str = "") -> str:
    """ "1 error", "2 errors"."""
    return f"{number} {noun if number == 1 else several or noun + 's'}"


def json_option(command: F) -> F:
    """Add `--json` to a command."""

    def wanted(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Output).json = True

    option = click.option(
        "--json", is_flag=True, expose_value=False, is_eager=True, callback=wanted, help="Print one JSON object on standard output."
    )
    return option(command)


class Output:
    """Where a command's answer goes. One for each call of the program."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.json = False
        self._out = out
        self._err = err
        self._answered = False

    # The streams are looked up late, so that tests may replace them.
    @property
    def out(self) -> TextIO:
        return self._out or sys.stdout or _nowhere()

    @property
    def err(self) -> TextIO:
        return self._err or sys.stderr or _nowhere()

    @property
    def terminal(self) -> bool:
        """True where people read standard output."""
        return self.out.isatty()

    @property
    def unicode(self) -> bool:
        """True where standard output takes more than ASCII."""
        return "utf" in (getattr(self.out, "encoding", "") or "utf-8").lower()

    def mark(self, yes: bool | None) -> str:
        """A sign before an answer: yes, no, or not asked."""
        return {True: "✓", False: "✗", None: "–"}[yes] if self.unicode else {True: "+", False: "X", None: "-"}[yes]

    # -- answers ---------------------------------------------------------------------------------------------------------------

    def result(self, value: Mapping[str, Any], text: str | Callable[[], object] = "") -> None:
        """The answer: `value` as JSON with `--json`, otherwise `text` (or what it prints when it is called)."""
        if self.json:
            self._object({**value, "error": value.get("error")})
        elif callable(text):
            text()
        elif text:
            self.text(text)

    def text(self, text: str = "") -> None:
        """A line for people; nothing with `--json`."""
        if not self.json:
            print(printable(text), file=self.out)

    def fact(self, label: str, text: str, yes: bool | None = None) -> None:
        """A line of a list of facts: its label, and what is the case; a mark where it is a yes or a no."""
        mark = f"{self.mark(yes)} " if yes is not None else ""
        self.text(f"  {label:<12}{mark}{text}")

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "", title: str = "", headings: bool = True
    ) -> None:
        """Rows under headings: drawn on a terminal, columns parted by two blanks elsewhere; `empty` where there are none."""
        if self.json:
            return
        if not rows:
            if empty:
                self.text(empty)
            return
        cells = [["" if cell is None else printable(cell).replace("\n", " ") for cell in row] for row in rows]
        widths = [max(len(line[index]) for line in [list(columns), *cells]) for index in range(len(columns))]
        if self.terminal and headings and sum(widths) + 3 * len(widths) > shutil.get_terminal_size().columns:
            self._blocks(columns, cells)
            return
        if self.terminal:
            from rich import box
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text

            drawn = Table(
                box=box.SIMPLE_HEAD if headings else None,
                pad_edge=False,
                header_style="bold",
                show_header=headings,
                title=title or None,
                title_justify="left",
            )
            for column in columns:
                drawn.add_column(column, overflow="fold")
            for row in cells:
                drawn.add_row(*(Text(cell) for cell in row))
            Console(file=self.out).print(drawn)
            return
        for line in [[column.upper() for column in columns], *cells] if headings else cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=self.out)

    def _blocks(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        """Rows one below the other, for a terminal that is too narrow for them: a name in five pieces cannot be read or copied."""
        label = max(len(column) for column in columns)
        for number, row in enumerate(cells):
            if number:
                print(file=self.out)
            for column, cell in zip(columns, row, strict=True):
                if cell:
                    print(f"{column:>{label}}  {cell}", file=self.out)

    def finish(self) -> None:
        """Called when the command ended well: with `--json` there is an object even if the command gave none."""
        if self.json and not self._answered:
            self._object({"error": None})

    def _object(self, value: Mapping[str, Any]) -> None:
        assert not self._answered, "a command answers once"
        self._answered = True
        json.dump(value, self.out, ensure_ascii=True, default=_plain)
        self.out.write("\n")

    # -- errors, warnings, progress --------------------------------------------------------------------------------------------

    def error(self, message: str, hint: str = "") -> None:
        """One error on standard error, with what can be done about it."""
        self._say("error", RED, message, hint)

    def warning(self, message: str, hint: str = "") -> None:
        """Something that works, and should be different."""
        self._say("warning", YELLOW, message, hint)

    def progress(self, message: str) -> None:
        """A line on standard error where people wait."""
        if self.err.isatty():
            print(f"{self._paint(DIM)}{printable(message)}{self._paint(PLAIN)}", file=self.err, flush=True)

    def failure(self, name: str, stage: str, message: str, hint: str = "") -> None:
        """The error that ends the command."""
        self.error(message, hint)
        if self.json and not self._answered:
            self._object({"error": {"class": name, "stage": stage, "message": message, "hint": hint}})

    def mailsec_error(self, error: MailsecError) -> None:
        """A MailsecError that ends the command; one with `problems` (of a configuration) is told problem by problem."""
        problems: Sequence[MailsecError] = getattr(error, "problems", ())
        for problem in problems:
            self.error(problem.message, problem.hint)
        if problems:
            print(f"mailsec: {printable(error.message)}", file=self.err)
        else:
            self.error(error.message, error.hint)
        if self.json and not self._answered:
            described: dict[str, Any] = {"error": _described(error)}
            if problems:
                described["errors"] = [_described(problem) for problem in problems]
            self._object(described)

    def _say(self, kind: str, colour: str, message: str, hint: str) -> None:
        print(f"mailsec: {self._paint(colour)}{kind}:{self._paint(PLAIN)} {printable(message)}", file=self.err)
        if hint:
            print(f"mailsec: {self._paint(CYAN)}hint:{self._paint(PLAIN)} {printable(hint)}", file=self.err)
        self.err.flush()

    def _paint(self, code: str) -> str:
        # https://no-color.org: any value that is not empty asks for none.
        return code if self.err.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" else ""


@functools.cache
def _nowhere() -> TextIO:
    """For a standard stream that was closed before we were started (`>&-`): Python has None for it."""
    return Path(os.devnull).open("w", encoding="utf-8")


def _described(error: MailsecError) -> dict[str, str]:
    return {"class": type(error).__name__, "stage": error.stage, "message": error.message, "hint": error.hint}


def _plain(value: Any) -> Any:
    """What json does not know: instants as RFC 3339 in UTC, sets and tuples as lists, the rest as text."""
    isoformat = getattr(value, "isoformat", None)
    if isoformat is not None:
        return isoformat().replace("+00:00", "Z")
    if isinstance(value, set | frozenset | tuple):
        return sorted(value) if isinstance(value, set | frozenset) else list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
