"""Paths in the settings of a plugin: types for the fields of its model, which mailsec reads as it reads the paths of its own sections.

    class LookupSettings(BaseModel):
        table: File = ""
        password_file: SecretFile = ""

A relative path is taken from the directory of the configuration file. `mailsec check`, `serve` and a reload refuse a `File` that is not there
or cannot be read, and a `SecretFile` that others could read. The empty string names no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, ValidationInfo
    from pydantic_core import CoreSchema

__all__ = ["AnyPath", "File", "NamedPath", "SecretFile"]


@dataclass(frozen=True, slots=True)
class NamedPath:
    """What a field of a settings model names: the metadata of an `Annotated[str, …]`."""

    kind: Literal["any", "file", "secret"] = "any"
    """ "any": it need not be there; "file": it is there and can be read; "secret": and nobody else can read it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A string, put beside the configuration file by whoever reads that: the context's function "beside"."""
        from pydantic_core import core_schema

        return core_schema.with_info_after_validator_function(_beside, handler(source))


def _beside(value: str, info: ValidationInfo) -> str:
    beside = (info.context or {}).get("beside")
    return value if beside is None else str(beside(value))


AnyPath = Annotated[str, NamedPath()]
File = Annotated[str, NamedPath("file")]
SecretFile = Annotated[str, NamedPath("secret")]
