"""Compiles the kernels when the package is built or installed in place; without a compiler it goes without them."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/resnetkit/kernels")


class Kernels(BuildHookInterface[Any]):
    """The wheel is for all versions of Python on this platform, or for any platform where nothing was compiled."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, or say why not."""
        spec = importlib.util.spec_from_file_location("kernels_build", Path(self.root) / FOLDER / "build.py")
        assert spec is not None and spec.loader is not None
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        try:
            if not build.is_fresh():
                (Path(self.root) / FOLDER / build.NAME).unlink(missing_ok=True)  # of older sources
                build.build()
        except build.CannotBuildError as error:
            self.app.display_warning(f"resnetkit goes without its own kernels, which only make it faster: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data.update(pure_python=False, tag=f"py3-none-{platform}")
        build_data["artifacts"].append(str(FOLDER / build.NAME))
