"""What to do: TOML to settings and back, dotted overrides, validation with the nearest known key.

Precedence: flag > file or named recipe > default of the task > default.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib import resources
from keyword import iskeyword
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from resnetkit.errors import UsageError
from resnetkit.settings import Recipe as Recipe


def as_dict(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Section to key to value, with the keys that a file has: a field that Python reserves ends in "_"."""
    return {
        section: {name.rstrip("_"): value for name, value in values.items()}
        for section, values in asdict(recipe).items()
    }


def keys() -> list[str]:
    """Every setting as section.key."""
    return [f"{section}.{key}" for section, values in as_dict(Recipe()).items() for key in values]


def named_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        Path(entry.name).stem
        for entry in (resources.files("resnetkit") / "recipes").iterdir()
        if entry.name.endswith(".toml")
    )


def read(
    recipe: str | Path, overrides: Mapping[str, Any] | None = None, defaults: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe from its name or file, with overrides by dotted key ("train.epochs": 5) laid over it.

    Args:
        recipe: a name of `named_recipes`, the path of a .toml, or "" for the defaults.
        overrides: dotted key to value; a string is read as TOML where the setting is not a string.
        defaults: dotted key to value, where neither the recipe nor the overrides have one.

    Raises:
        UsageError: no such recipe, an unknown key (with the nearest known one), a value out of its range.
    """
    values, source = _load(recipe)
    for section, content in values.items():
        for key in content if isinstance(content, dict) else [""]:
            refuse_unknown(f"{section}.{key}".rstrip("."), keys(), source)
    for key, value in (overrides or {}).items():
        refuse_unknown(key, keys())
        section, name = key.split(".")
        values.setdefault(section, {})[name] = value
    for key, value in (defaults or {}).items():
        section, name = key.split(".")
        if isinstance(values.setdefault(section, {}), dict):
            values[section].setdefault(name, value)
    return _validated(values, source)


def replace(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some settings changed, by dotted key.

    Raises:
        UsageError: as `read`.
    """
    values = as_dict(recipe)
    for key, value in changes.items():
        refuse_unknown(key, keys())
        section, name = key.split(".")
        values[section][name] = value
    return _validated(values, None)


def merged(flags: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flags and --set together.

    Raises:
        UsageError: both give one setting, with different values.
    """
    for key in flags.keys() & settings.keys():
        if flags[key] != settings[key]:
            raise UsageError(f"{key} is given twice, as {flags[key]!r} and as {settings[key]!r}", fix="give it once")
    return {**flags, **settings}


def parse_setting(text: str) -> tuple[str, Any]:
    """`section.key=value` to key and value; the value is TOML, or else a bare string.

    Raises:
        UsageError: there is no "=".
    """
    key, separator, value = text.partition("=")
    if not separator:
        raise UsageError(f"--set {text}: has no '='", fix="write --set section.key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return key.strip(), value.strip()


def parse_duration(text: str | float) -> float:
    """Seconds in "90", "90s", "10m" or "1.5h".

    Raises:
        UsageError: it is none of these, or not above zero.
    """
    units = {"s": 1, "m": 60, "h": 3600}
    raw = str(text).strip().lower()
    number, unit = (raw[:-1], units[raw[-1]]) if raw and raw[-1] in units else (raw, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"time limit {text!r} is not a duration", fix="write 90s, 10m or 1.5h")
    return seconds


def as_toml(recipe: Recipe) -> str:
    """The whole recipe as TOML."""
    return tomli_w.dumps(as_dict(recipe))


def _load(recipe: str | Path) -> tuple[dict[str, Any], str | None]:
    if not str(recipe):
        return {}, None
    path = Path(recipe)
    if path.suffix == ".toml":
        try:
            return tomllib.loads(path.read_text(encoding="utf-8")), str(path)
        except OSError as error:
            raise UsageError((error.strerror or str(error)).lower(), path=path, fix="give an existing .toml") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"is not valid TOML: {error}", path=path, fix="correct this line") from error
    if str(recipe) not in named_recipes():
        raise UsageError(
            f"there is no recipe {str(recipe)!r}", fix=f"a .toml file, or one of {', '.join(named_recipes())}"
        )
    text = (resources.files("resnetkit") / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text), str(recipe)


def refuse_unknown(key: str, known: Sequence[str], source: str | None = None) -> None:
    """Refuse a setting that is not among the known ones, with the nearest of them.

    Raises:
        UsageError: it is not.
    """
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    near = near or [full for full in known if full.rpartition(".")[2] == key.rpartition(".")[2]]
    raise UsageError(
        f"there is no setting {key!r}", path=source, fix=f"the nearest is {near[0]!r}" if near else "see docs"
    )


def _settings(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Key, value and default of each setting that is given."""
    default = as_dict(Recipe())
    for section, content in values.items():
        for name, value in content.items():
            yield f"{section}.{name}", value, default.get(section, {}).get(name)


def _validated(values: Mapping[str, Any], source: str | None) -> Recipe:
    for key, value, default in _settings(values):
        if isinstance(value, bool) and not isinstance(default, bool):
            raise UsageError(f"{key} = {value} is neither a number nor a name", path=source, fix=f"as in {default!r}")
    try:
        recipe = TypeAdapter(Recipe).validate_python(
            {
                section: {name + "_" * iskeyword(name): value for name, value in content.items()}
                for section, content in values.items()
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2]).rstrip("_")
        raise UsageError(f"{key} = {first['input']!r}: {first['msg']}", path=source, fix="correct it") from error
    assert is_dataclass(recipe)
    if recipe.data.val + recipe.data.test >= 1:
        raise UsageError("data.val + data.test leave nothing to train on", path=source, fix="lower one of them")
    return recipe
