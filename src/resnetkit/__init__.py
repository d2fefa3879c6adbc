"""Residual networks from a folder of examples: trained, measured with error bars, and run anywhere.

import resnetkit
run = resnetkit.train("photos/", model="resnet34")
model = resnetkit.load(run.folder)
model.predict("cat.jpg")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from resnetkit._version import __version__

if TYPE_CHECKING:
    from resnetkit.api import *  # noqa: F403

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    # Not `from resnetkit import api`, which would ask this function for "api" first.
    return getattr(import_module("resnetkit.api"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *import_module("resnetkit.api").__all__])
