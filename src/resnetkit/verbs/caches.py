"""Where decoded images are kept; no torch."""

from __future__ import annotations

from pathlib import Path

from resnetkit.files import cache_home


def cache_folder(setting: str) -> Path | None:
    """Where decoded images are kept by a setting of cache.folder, or None for memory."""
    if setting == "none":
        return None
    if setting != "auto":
        return Path(setting)
    home = cache_home()
    return home / "pixels" if home else None
