"""On which line of a TOML document each key stands (TOML 1.0), so that errors can name it. tomllib tells values only.

The document has been read by tomllib before, so this walks valid TOML; on anything else it stops and what was found is used.
"""

from __future__ import annotations

import re

__all__ = ["Path", "key_lines", "line_of"]

Path = tuple[str | int, ...]
"""Where a value stands: ("listener", 0, "address")."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
_MULTI_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL)
_MULTI_LITERAL = re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL)


class _Stop(Exception):
    """Not TOML as far as this walker knows it."""


class _Walker:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}
        self._line = 1
        self._counted = 0

    def here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise _Stop
        self.at = found.end()
        return found.group()

    def starts(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def document(self) -> None:
        prefix: Path = ()
        while True:
            self.skip(_SPACE)
            if self.at >= len(self.text):
                return
            if self.starts("[["):
                line = self.here()
                path = self.under_tables(self.key())
                self.tables[path] = self.tables.get(path, -1) + 1
                self.lines.setdefault(path, line)
                prefix = (*path, self.tables[path])
                self.lines[prefix] = line
                if not self.starts("]]"):
                    raise _Stop
            elif self.starts("["):
                line = self.here()
                prefix = self.under_tables(self.key())
                self.lines.setdefault(prefix, line)
                if not self.starts("]"):
                    raise _Stop
            else:
                self.pair(prefix)

    def under_tables(self, keys: Path) -> Path:
        """[listener.x] belongs to the last [[listener]]."""
        path: Path = ()
        for index, key in enumerate(keys):
            path = (*path, key)
            if path in self.tables and index < len(keys) - 1:
                path = (*path, self.tables[path])
        return path

    def key(self) -> Path:
        names: list[str] = []
        while True:
            self.skip(_BLANK)
            if self.text[self.at : self.at + 1] in ('"', "'"):
                names.append(self.skip(_BASIC if self.text[self.at] == '"' else _LITERAL)[1:-1])
            else:
                names.append(self.skip(_BARE_KEY))
            self.skip(_BLANK)
            if not self.starts("."):
                return tuple(names)

    def pair(self, prefix: Path) -> None:
        line = self.here()
        keys = self.key()
        for length in range(1, len(keys) + 1):
            self.lines.setdefault((*prefix, *keys[:length]), line)
        if not self.starts("="):
            raise _Stop
        self.skip(_BLANK)
        self.value((*prefix, *keys))

    def value(self, path: Path) -> None:
        self.lines.setdefault(path, self.here())
        if self.text.startswith('"""', self.at):
            self.skip(_MULTI_BASIC)
        elif self.text.startswith("'''", self.at):
            self.skip(_MULTI_LITERAL)
        elif self.text.startswith('"', self.at):
            self.skip(_BASIC)
        elif self.text.startswith("'", self.at):
            self.skip(_LITERAL)
        elif self.starts("["):
            self.several(path, "]")
        elif self.starts("{"):
            self.several(path, "}")
        else:
            self.skip(_SCALAR)

    def several(self, path: Path, end: str) -> None:
        index = 0
        while True:
            self.skip(_SPACE)
            if self.starts(end):
                return
            if end == "]":
                self.value((*path, index))
            else:
                self.pair(path)
            index += 1
            self.skip(_SPACE)
            self.starts(",")


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of each key, table and array element of a TOML document."""
    walker = _Walker(text)
    try:
        walker.document()
    except (_Stop, RecursionError):
        pass
    return walker.lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of `path`, or of the nearest thing around it; 1 where nothing is known."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 1
