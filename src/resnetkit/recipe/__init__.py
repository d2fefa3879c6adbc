"""What to do, as frozen typed settings: TOML in and out, dotted overrides, validation with the nearest known key.

Precedence: flag > file > named recipe > default. "auto" is decided by `verbs.train` before the first step, and the
decision is what the run's recipe.toml holds.
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
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from resnetkit.errors import UsageError
from resnetkit.recipe.kinds import STRICT, Auto, Positive, Probability, Share
from resnetkit.recipe.senses import Sound, Text
from resnetkit.recipe.tuning import Finetune, Grow


@dataclass(frozen=True, config=STRICT)
class Data:
    """Where the examples are and how they are split."""

    source: str = ""
    """Folder of class folders, a .zip or .tar of them, or a CSV of path,label[,split] or path,labels[,split]; of texts
    also .csv, .tsv or .jsonl, or a folder with train.csv."""
    task: str = "auto"
    """classify: one class an image; multilabel: several labels or none; sound, sound-multilabel, text, text-multilabel
    likewise; auto: read from the data."""
    val: Share = 0.15
    """Share of the training images that chooses the best epoch, where the data has no val split."""
    test: Share = 0.15
    """Share that is only scored, where the data has no splits."""
    allow_empty_class: bool = False
    """Go on with a class that has no images, or none in a given split."""
    allow_leak: bool = False
    """Go on although given splits share images, byte for byte."""
    max_bad: Share = 0.0
    """Share of the images of a split that may be unreadable and are left out; they are listed."""
    follow_links: bool = False
    """Follow links to files outside the folder."""
    text: str = ""
    """Column that holds the text, by name or by number from 1; "": by the usual names."""
    label: str = ""
    """Column that holds the label of a text, likewise."""
    fixes: str = ""
    """A CSV of path,action,label, as `check --write` makes it: images to leave out or to give another label."""


@dataclass(frozen=True, config=STRICT)
class Model:
    """The network and where its weights start from."""

    variant: str = "resnet34"
    """Name of the network, see `resnetkit.models`; of sounds resnet18 and of texts words, if left out."""
    width: Annotated[int, Field(ge=8, le=512)] | Auto = "auto"
    """Channels of the first stage; auto: the variant's; of sounds 32, if left out."""
    weights: str = "auto"
    """A published name, a weights file, hf://owner/name, or "none"; auto: IMAGENET1K_V1, or none under 64 px."""
    stem: Literal["auto", "imagenet", "small", "deep"] = "auto"
    """small: 3x3, stride 1, no pooling; deep: three of 3x3; auto: the variant's, small under 64 px without weights."""
    shortcut: Literal["auto", "none", "A", "B", "C", "D"] = "auto"
    """A pads, B projects where shapes change, C everywhere, D averages and projects; none: for texts; auto: the
    variant's."""
    pool: Literal["last", "all"] = "last"
    """Stages whose pooled features the last layer sees; all: more accurate on few images, not for torchvision, timm."""
    zero_init_residual: bool = True
    """Start every residual branch at zero; only without weights."""
    stochastic_depth: Share = 0.0
    """Chance to skip the last block in training."""
    freeze: Literal["none", "stem", "layer1", "layer2", "layer3", "layer4"] = "none"
    """The last part that stays as it is, BatchNorm statistics included."""


@dataclass(frozen=True, config=STRICT)
class Image:
    """What the network sees of an image."""

    size: Annotated[int, Field(ge=8, le=4096)] | Auto = "auto"
    """Height and width in pixels; auto: 224, or for smaller images their own size, 32 at least; CIFAR networks: 32."""
    start_size: Annotated[int, Field(ge=0, le=4096)] = 0
    """Pixels at which the whole network begins to learn; grows to size in two thirds of the steps; 0: always size."""
    resize: Literal["crop", "squash", "letterbox"] = "crop"
    """crop: centre square; squash: all of it, without proportions; letterbox: all of it, with bars."""
    crop_ratio: Annotated[float, Field(gt=0, le=1)] | Auto = "auto"
    """Side of the centre square as a share of the short side; auto: 0.875, or 1 under 64 px."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resize."""
    channels: Annotated[int, Field(ge=1, le=16)] = 3
    """1: grey, 3: RGB; others: .npy of [H, W, C], or images of as many bands or pages."""


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Random changes of training images, each drawn from (seed, step)."""

    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Random resized crop: smallest share of the area."""
    max_aspect: Annotated[float, Field(ge=1)] = 1.333
    """Random resized crop: largest change of proportions."""
    flip: bool = True
    """Mirror left and right; off where sides matter, as in writing."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation, degrees."""
    color: Probability = 0.2
    """Largest relative change of brightness, contrast and saturation."""
    trivial_augment: bool = False
    """One random operation an image (TrivialAugment, arXiv 2103.10158)."""
    erasing: Probability = 0.0
    """Chance that a rectangle is blanked (random erasing, arXiv 1708.04896)."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup (arXiv 1710.09412); 0: off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of cutmix (arXiv 1905.04899); 0: off. With mixup, one of both by turns at random."""


@dataclass(frozen=True, config=STRICT)
class Optim:
    """The optimiser, its schedule, and the loss."""

    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    """SGD with Nesterov momentum 0.9, or AdamW; auto: AdamW to fine-tune, else SGD."""
    lr: Positive | Auto = "auto"
    """Peak learning rate; auto: by optimiser, batch size, and whether weights are given."""
    backbone_lr: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Rate of everything but the head, as a share of the head's."""
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    """Both end at zero; one-cycle rises as a cosine from lr/25, cosine rises on a line from 0."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Not on norms and biases."""
    label_smoothing: Share = 0.1
    """Share of the target given to all classes (arXiv 1512.00567), or to both outcomes of each label."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each class counts the same, whatever its number of images; a label as much as its absence."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of all gradients together; 0: no limit."""
    ema_decay: Share = 0.0
    """Decay a step of the averaged weights that are evaluated and kept; 0: off."""


@dataclass(frozen=True, config=STRICT)
class Train:
    """How long, how much at a time, and on what."""

    epochs: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Passes over the training images with the whole network; 0: only what `finetune` says."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 32
    """Images a step, over all processes."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a lower calibrated loss on val; 0: never."""
    time_limit: Annotated[float, Field(ge=0)] = 0.0
    """Seconds for everything; 0: none. The number of epochs is cut to what fits."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of splits, first weights, order and augmentation."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    """auto: f32 on CPUs, bf16 on GPUs that compute in it, f16 on older ones."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """auto: whichever is faster in a few steps."""
    workers: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    """Processes that decode, where the decoded images do not fit the cache; auto: one a core."""


@dataclass(frozen=True, config=STRICT)
class Cache:
    """Where decoded images are kept, so that each is decoded once and not in every epoch of every run."""

    folder: str = "auto"
    """A folder; "none": in memory only; auto: resnetkit/pixels under RESNETKIT_CACHE or the user's cache folder."""
    gb: Annotated[float, Field(ge=0)] = 4.0
    """Largest size, 10^9 bytes, of all that is kept there; a set that is larger is decoded anew in every epoch."""


@dataclass(frozen=True, config=STRICT)
class Calibrate:
    """What the validation images say about how far the model may be believed."""

    sets: Literal["lac", "aps"] = "lac"
    """Sets of classes with a stated coverage: lac makes the smallest, aps gives hard images larger and easy ones
    smaller ones, and none is empty."""


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """All settings of a training."""

    data: Data = Data()
    model: Model = Model()
    image: Image = Image()
    sound: Sound = Sound()
    text: Text = Text()
    augment: Augment = Augment()
    optim: Optim = Optim()
    train: Train = Train()
    finetune: Finetune = Finetune()
    grow: Grow = Grow()
    cache: Cache = Cache()
    calibrate: Calibrate = Calibrate()


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
    recipe: str | Path, overrides: Mapping[str, Any] | None = None, usual: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe from its name or file, with overrides by dotted key ("train.epochs": 5) laid over it.

    Args:
        recipe: a name of `named_recipes`, the path of a .toml, or "" for the defaults.
        overrides: dotted key to value; a string is read as TOML where the setting is not a string.
        usual: what stands under the file instead of the defaults, likewise.

    Raises:
        UsageError: no such recipe, an unknown key (with the nearest known one), a value out of its range.
    """
    values, source = _load(recipe)
    for section, content in values.items():
        for key in content if isinstance(content, dict) else [""]:
            refuse_unknown(f"{section}.{key}".rstrip("."), keys(), source)
    for key, value in (usual or {}).items():
        section, name = key.split(".")
        values.setdefault(section, {}).setdefault(name, value)
    for key, value in (overrides or {}).items():
        refuse_unknown(key, keys())
        section, name = key.split(".")
        values.setdefault(section, {})[name] = value
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
