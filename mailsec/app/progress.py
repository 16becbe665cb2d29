"""How far something long has come: a bar on a terminal (rich), nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mailsec.app.output import Output

__all__ = ["progressing"]


@contextmanager
def progressing(output: Output, what: str, total: int) -> Iterator[Callable[[int, str], object]]:
    """Yields `show(done, words)`: how many of `total` are done, and what to say beside the bar."""
    if not output.err.isatty() or output.json:
        yield lambda done, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=output.err), transient=True) as bar:
        task = bar.add_task(what, total=total or None, words="")
        yield lambda done, words: bar.update(task, completed=done, words=words)
