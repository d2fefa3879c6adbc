"""What the ways of preparing an input have in common, whether it is an image, a sound or a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from resnetkit.errors import ModelError

T = TypeVar("T")


class Prepared(Protocol):
    """From an input to an array of one shape and type, which a network's input is made of; frozen, in model.json."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array of one input."""
        ...

    @property
    def dtype(self) -> type[np.integer[Any]]:
        """Of its numbers."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """As it stands in model.json."""
        ...


def prepared_from(kind: type[T], values: Mapping[str, Any], path: Path) -> T:
    """The values in a model.json at `path`, checked.

    Raises:
        ModelError: one is missing or not valid.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"preprocess.{where}: {first['msg']}", path=path, fix="train or save the model again"
        ) from error
