"""Everything that is wrong with a configuration, told at once: where, what, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from mailsec.app.config.lines import Path, line_of
from mailsec.errors import ConfigurationError, Unavailable
from mailsec.model.settings import Problem

__all__ = ["ConfigurationErrors", "DatabaseIsAway", "Problem", "closest", "located", "near", "spelt"]


class ConfigurationErrors(ConfigurationError):
    """All mistakes of one configuration; each of `problems` begins with file and line."""

    def __init__(self, problems: Sequence[ConfigurationError], consequence: str = "nothing was started") -> None:
        number = len(problems)
        super().__init__(f"{number} error{'' if number == 1 else 's'}; {consequence}", stage="configuration")
        self.problems = tuple(problems)


class DatabaseIsAway(ConfigurationErrors):
    """Nothing is wrong but that the database does not answer: systemd tries again, which it does not with a wrong configuration."""

    temporary = True
    exit_code = Unavailable.exit_code


def spelt(path: Path) -> str:
    """How people write a path: listener[0].address."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def located(file: str, lines: dict[Path, int], problems: Sequence[Problem]) -> list[ConfigurationError]:
    """The problems as errors that begin with file and line, in the order of the file."""
    placed = sorted(((line_of(lines, problem.path), problem) for problem in problems), key=lambda pair: pair[0])
    errors = []
    for line, problem in placed:
        where = spelt(problem.path)
        errors.append(
            ConfigurationError(
                f"{file}:{line}: {where}: {problem.message}" if where else f"{file}:{line}: {problem.message}",
                hint=problem.hint,
                stage="configuration",
            )
        )
    return errors


def closest(name: str, known: Sequence[str]) -> str:
    """The known word that `name` was probably meant to be; "" where none is near."""
    folded = {word.replace("_", "").replace("-", "").lower(): word for word in known}
    found = difflib.get_close_matches(name.replace("_", "").replace("-", "").lower(), folded, 1, 0.6)
    return folded[found[0]] if found else ""


def near(name: str, known: Sequence[str]) -> str:
    """The hint for a misspelt word: "did you mean …?", or what there is."""
    meant = closest(name, known)
    if meant:
        return f'did you mean "{meant}"?'
    return "there are: " + ", ".join(known) if known and len(known) <= 20 else ""
