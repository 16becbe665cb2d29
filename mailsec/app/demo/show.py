"""How the demonstration tells what it does: chapters, ticks as things happen, tables; drawn on a terminal, plain elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mailsec.app.output import printable

__all__ = ["Show", "StepFailed"]


class StepFailed(Exception):
    """A step did not give what it should."""

    def __init__(self, what: str, expected: str, got: str) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.got = got


class Show:
    """Prints the story. Marks are words where the output cannot show them as signs."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 100)
        unicode = (self.console.encoding or "").lower().startswith("utf")
        self.tick, self.cross, self.bar = ("✓", "✗", "─") if unicode else ("ok", "FAILED", "-")
        self.began = time.monotonic()

    def title(self, text: str, below: str) -> None:
        self.console.print()
        self.console.print(Text(text, style="bold"))
        self.console.print(Text(below, style="dim"))

    def chapter(self, number: int, text: str) -> None:
        self.console.print()
        self.console.print(Text.assemble((f"{number} ", "bold cyan"), (text, "bold")))

    def ok(self, text: str, detail: str = "") -> None:
        """A thing that was done, with what came of it."""
        self._line(self.tick, "green", text, detail)

    def note(self, text: str) -> None:
        """A thing that is left out, or worth knowing."""
        self._line("·" if self.tick == "✓" else "-", "yellow", text, "")

    def failed(self, failure: StepFailed) -> None:
        self._line(self.cross, "bold red", failure.what, "")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        grid.add_row("expected", Text(printable(failure.expected)))
        grid.add_row("got", Text(printable(failure.got)))
        self.console.print(Padding(grid, (0, 0, 0, 4), expand=False))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
        """A table; on a narrow terminal, or for no terminal, one paragraph for each row."""
        self.console.print()
        if title:
            self.console.print(Text(title, style="bold"))
        if self.console.width < 72 or not self.console.is_terminal:
            for row in rows:
                grid = Table.grid(padding=(0, 1))
                grid.add_column(no_wrap=True, style="dim")
                grid.add_column(overflow="fold")
                for column, cell in zip(columns, row, strict=True):
                    if cell:
                        grid.add_row(column, Text(printable(cell)))
                self.console.print(Padding(grid, (0, 0, 1, 2), expand=False))
            return
        drawn = Table(box=box.ROUNDED, header_style="bold", show_lines=True, border_style="dim")
        for index, column in enumerate(columns):
            drawn.add_column(column, overflow="fold", style=styles[index] if index < len(styles) else "")
        for row in rows:
            drawn.add_row(*(_coloured(printable(cell)) for cell in row))
        self.console.print(drawn)

    def lines(self, *lines: str) -> None:
        for line in lines:
            self.console.print(Text(line), soft_wrap=True)

    def files(self, directory: Path, files: Sequence[tuple[str, str]]) -> None:
        """Where things are."""
        self.console.print(Text.assemble("The files are in ", (str(directory), "bold")), soft_wrap=True)
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, style="cyan")
        grid.add_column(overflow="fold", style="dim")
        for name, what in files:
            grid.add_row(name, what)
        self.console.print(Padding(grid, (0, 0, 0, 2), expand=False))

    def elapsed(self) -> str:
        """Since the beginning."""
        return f"{time.monotonic() - self.began:.1f} seconds"

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Shows that something takes its time."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(Text(text, style="dim"), spinner="dots"):
            yield

    def _line(self, mark: str, style: str, text: str, detail: str) -> None:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        words = Text(printable(text))
        if detail:
            words.append(f"  {printable(detail)}", style="dim")
        grid.add_row(Text(mark, style=style), words)
        self.console.print(Padding(grid, (0, 0, 0, 2), expand=False))


_WORDS = {"pass": "green", "fail": "red", "policy": "yellow", "none": "dim"}


def _coloured(cell: str) -> Text:
    text = Text(cell)
    for word, colour in _WORDS.items():
        text.highlight_regex(rf"\bsmime={word}\b", style=colour)
    return text
