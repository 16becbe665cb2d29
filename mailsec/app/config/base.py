"""What all sections of a configuration are made of: paths beside the file, one for a list of one, no names that nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo

__all__ = ["File", "Section", "Several", "several"]


def _beside(value: str, info: ValidationInfo) -> str:
    """A path relative to the configuration file; an URL, "nss:DIR" and the empty string stay."""
    base = (info.context or {}).get("base")
    return value if base is None or not value or "://" in value or value.startswith("nss:") else str(Path(base) / Path(value).expanduser())


def several(value: Any) -> Any:
    """One string stands for a list of it."""
    return [value] if isinstance(value, str) else value


File = Annotated[str, AfterValidator(_beside)]
Several = Annotated[list[str], BeforeValidator(several)]


class Section(BaseModel):
    """What all sections share: unknown names are errors, nothing is converted silently, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, validate_default=True)
