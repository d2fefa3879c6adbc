"""Where decoded images are kept; no torch."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(setting: str) -> Path | None:
    """Where decoded images are kept by a setting of cache.folder, or None for memory."""
    if setting == "none":
        return None
    if setting != "auto":
        return Path(setting)
    own = os.environ.get("RESNETKIT_CACHE")
    if own:
        return Path(own) / "pixels"
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared:
        return Path(shared) / "resnetkit" / "pixels"
    try:
        return Path.home() / ".cache" / "resnetkit" / "pixels"
    except RuntimeError:  # there is no home
        return None
