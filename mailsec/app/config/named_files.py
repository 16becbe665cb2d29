"""Files that settings name: which the settings of a plugin name (`interfaces.File`), and whether they can be used."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from mailsec.app.config.lines import Path as Place
from mailsec.app.files import reason_of
from mailsec.interfaces import NamedPath
from mailsec.model.settings import Problem

__all__ = ["file_problem", "find_file_problems", "secret_file_problem", "unreadable"]


def find_file_problems(place: Place, settings: BaseModel) -> list[Problem]:
    """What is wrong with the files that `settings`, the table at `place`, names."""
    problems = []
    for where, path, named in _named(place, settings, None, ()):
        if path and named.kind != "any":
            problem = secret_file_problem(where, path) if named.kind == "secret" else file_problem(where, path)
            if problem is not None:
                problems.append(problem)
    return problems


def secret_file_problem(place: Place, path: str) -> Problem | None:
    """What keeps the secret in the file `path` from being read, or from being one; None: nothing."""
    problem = file_problem(place, path)
    if problem is None and Path(path).stat().st_mode & 0o077 and not _is_credential(path):
        return Problem(place, f"others may read the secret in {path}", f"chmod 600 {path}")
    return problem


def _is_credential(path: str) -> bool:
    """systemd lets a service read its credentials by an access list, which shows as rights of a group."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return bool(directory) and Path(path).is_relative_to(directory)


def file_problem(place: Place, path: str) -> Problem | None:
    """What keeps the file `path` from being read; None: nothing."""
    try:
        kind = Path(path).stat().st_mode
        if stat.S_ISDIR(kind):
            return Problem(place, f"{path} is a directory", "name a file")
        if stat.S_ISREG(kind):
            with Path(path).open("rb"):
                pass
    except OSError as error:
        return unreadable(place, path, error)
    return None


def unreadable(place: Place, path: str, error: OSError) -> Problem:
    """The file `path` cannot be read, and what to do about it."""
    hint = ""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        hint = "is the name right? relative ones are taken from beside the configuration file"
    elif isinstance(error, PermissionError):
        hint = f"it must be readable for the user that mailsec runs as (now {os.geteuid()})"
    return Problem(place, f"cannot read {path}: {reason_of(error)}", hint)


def _named(place: Place, value: Any, annotation: Any, metadata: Sequence[Any]) -> Iterator[tuple[Place, str, NamedPath]]:
    """Every path in a value of a settings model, with what its type says of it."""
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = (*metadata, *more)
    named = next((one for one in metadata if isinstance(one, NamedPath)), None)
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _named((*place, name), getattr(value, name), field.annotation, field.metadata)
    elif isinstance(value, str):
        if named is not None:
            yield place, value, named
        else:
            for one in get_args(annotation):  # of a union: SecretFile | None
                if get_origin(one) is Annotated:
                    yield from _named(place, value, one, ())
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _named((*place, key), one, _inner(annotation), ())
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _named((*place, index), one, _inner(annotation), ())


def _inner(annotation: Any) -> Any:
    """The type of the items of a list, a tuple or a table."""
    arguments = [one for one in get_args(annotation) if one is not Ellipsis]
    return arguments[-1] if arguments else None
