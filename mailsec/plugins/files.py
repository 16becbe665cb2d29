"""Plugins that are single files: `[plugins] path` names directories, and NAME.py in one of them is the plugin NAME.

The one invariant: what is imported is what root wrote. Attack: whoever gets hold of the service writes a plugin, and has the pass phrase at
the next start. So the file, and every directory above it, belongs to root and can be written by nobody else; what is checked is what is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from mailsec.errors import ConfigurationError
from mailsec.plugins.answers import first_line

__all__ = ["MODULE_PREFIX", "find_files", "import_file"]

MODULE_PREFIX = "mailsec_plugin_file_"
"""A plugin file is a module of this name and its own, which no import finds."""
_LARGEST = 1024 * 1024
_MOST_LINKS = 40
"""As Linux itself (path_resolution(7))."""


def find_files(paths: Sequence[str]) -> Mapping[str, Path]:
    """Name to file. Raise ConfigurationError for a directory that cannot be read; nothing is imported."""
    found: dict[str, Path] = {}
    for directory in paths:
        try:
            files = sorted(Path(directory).iterdir())
        except OSError as error:
            raise ConfigurationError(
                f"plugins cannot be looked for in {directory}: {os.strerror(error.errno or 0)}", hint="see [plugins] path"
            ) from error
        for file in files:
            if file.suffix == ".py" and file.stem.isidentifier():
                found.setdefault(file.stem, file)
    return found


def import_file(name: str, path: Path) -> object:
    """The plugin in a file: the object that it calls `plugin` (a class is made), or else the module. Raise ConfigurationError."""
    source = _read(name, path)
    module = ModuleType(MODULE_PREFIX + name)
    module.__file__ = str(path)
    try:
        # It is the administrator's file, and runs with the rights of the gateway, as every plugin does.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        plugin = getattr(module, "plugin", module)
        return plugin() if isinstance(plugin, type) else plugin
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"plugin {name} cannot be imported: {type(error).__name__}: {first_line(error)}", hint=f"mend {path}, or disable it"
        ) from error


def _read(name: str, path: Path) -> bytes:
    """The octets of a file that only root can have written."""
    try:
        last = Path("/")
        for last, status in _way_to(path):
            _demand(name, last, status)
        descriptor = os.open(last, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            _demand(name, path, status)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                raise ConfigurationError(f"plugin {name}: {path} is no file of Python", hint="a plugin is a small file NAME.py")
            return file.read(_LARGEST)
    except OSError as error:
        raise ConfigurationError(f"plugin {name}: {path} cannot be read: {os.strerror(error.errno or 0)}", hint=f"ls -l {path}") from error


def _way_to(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Each directory and each link that the system would go through to the file, and the file; raise OSError."""
    left = list(reversed(Path(os.path.abspath(path)).parts))  # noqa: PTH100 - links are looked at, not followed
    at, links = Path("/"), 0
    while left:
        at = at / left.pop()
        status = at.lstat()
        yield at, status
        if stat.S_ISLNK(status.st_mode):
            # Attack: a link of root's that leads to a link of somebody else's: each step is one that could be turned round.
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            left += reversed(at.readlink().parts)
            at = at.parent


def _demand(name: str, path: Path, status: os.stat_result) -> None:
    """Raise ConfigurationError where somebody else than root could change what is there."""
    if status.st_uid != 0:
        raise ConfigurationError(
            f"plugin {name}: {path} does not belong to root, and whoever owns it decides what mailsec runs", hint=f"chown root {path}"
        )
    # In a directory with the sticky bit nobody renames or removes what belongs to root.
    shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not shared and not stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"plugin {name}: {path} can be written by others than root", hint=f"chmod go-w {path}")
