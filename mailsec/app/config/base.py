"""What all sections of a configuration are made of: paths beside the file, one for a list of one, no names that nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from mailsec.interfaces import AnyPath

__all__ = ["File", "Section", "Several", "beside", "several"]


def beside(path: str) -> Mapping[str, Any]:
    """The context in which the sections of the file `path` are read: relative paths are taken from its directory.

    An URL, "nss:DIR" and the empty string stay as they are.
    """
    base = Path(path).resolve().parent

    def located(value: str) -> str:
        return value if not value or "://" in value or value.startswith("nss:") else str(base / Path(value).expanduser())

    return {"beside": located}


def several(value: Any) -> Any:
    """One string stands for a list of it."""
    return [value] if isinstance(value, str) else value


File = AnyPath
"""What the sections name is looked at by `surroundings`, which knows what each is for."""
Several = Annotated[list[str], BeforeValidator(several)]


class Section(BaseModel):
    """What all sections share: unknown names are errors, nothing is converted silently, numbers are finite, nothing changes
    afterwards."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
