"""A task is what is read times what is predicted: plain frozen values of functions, and one dict of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data import dataset, image
from resnetkit.data.annotated import Boxed
from resnetkit.data.archive import Member
from resnetkit.data.masks import Masked
from resnetkit.errors import UsageError
from resnetkit.ops.intervals import Metric
from resnetkit.tasks import classes, labels


class Scan(Protocol):
    """Reads a source of examples."""

    def __call__(self, source: Path, *, follow_links: bool = False) -> dataset.Dataset:
        """The examples in a source."""
        ...


@dataclass(frozen=True)
class Modality:
    """What is read.

    Attributes:
        extensions: endings of the files that count.
        scan: a folder, archive or CSV to a Dataset; `follow_links` as in `data.dataset.scan`.
        read: a path, bytes, or value in memory, to what `preprocess` takes.
        preprocess: that to uint8 [size, size, channels].
        normalise: a batch of these to the float32 input of a network.
        thumbnail: a file to a small JPEG.
    """

    extensions: tuple[str, ...]
    scan: Scan
    read: Callable[[Any, image.Preprocess], Any]
    preprocess: Callable[[Any, image.Preprocess], image.Pixels]
    normalise: Callable[[image.Pixels, image.Preprocess], NDArray[np.float32]]
    thumbnail: Callable[[dataset.File], bytes]


@dataclass(frozen=True)
class Target:
    """What is predicted.

    Attributes:
        prepare: a data set to one with this target's kind of targets; raises DataError where it cannot.
        encode: labels and class names to targets, [n] or [n, K].
        decode: logits of one sample, class names, path and number of answers, to a Prediction.
        judge: logits [n, K] and targets to what is said, how surely, and the loss.
        text: the target of one sample, and class names, to words.
        metrics: logits [n, K], targets and class names, to numbers with intervals.
        headline: name of the metric that is shown first.
    """

    prepare: Callable[[dataset.Dataset], dataset.Dataset]
    encode: Callable[[Sequence[str], Sequence[str]], NDArray[np.integer]]
    decode: Callable[[NDArray[np.floating], Sequence[str], str, int], classes.Prediction]
    judge: Callable[[NDArray[np.floating], NDArray[np.integer]], classes.Judged]
    text: Callable[[Any, Sequence[str]], str]
    metrics: Callable[[NDArray[np.floating], NDArray[np.integer], Sequence[str]], Mapping[str, Metric]]
    headline: str


@dataclass(frozen=True)
class Task:
    """What is read times what is predicted."""

    modality: Modality
    target: Target


def _read_image(source: Any, preprocess: image.Preprocess) -> image.Picture:
    if isinstance(source, str | bytes | Path | Member):
        return image.decode(source, preprocess)
    if isinstance(source, Image.Image):
        return image.from_image(source, preprocess)
    if isinstance(source, np.ndarray):
        return image.from_array(source, preprocess)
    raise UsageError(
        f"cannot predict a {type(source).__name__}", fix="give a path, a PIL image, an array, or a list of these"
    )


IMAGE = Modality(
    extensions=image.EXTENSIONS,
    scan=partial(dataset.scan, extensions=image.EXTENSIONS),
    read=_read_image,
    preprocess=image.pixels,
    normalise=image.normalise,
    thumbnail=image.thumbnail,
)
CLASSES = Target(
    classes.prepare, classes.encode, classes.decode, classes.judge, classes.text, classes.metrics, classes.HEADLINE
)
LABELS = Target(
    labels.prepare, labels.encode, labels.decode, labels.judge, labels.text, labels.metrics, labels.HEADLINE
)

TASKS = {"classify": Task(IMAGE, CLASSES), "multilabel": Task(IMAGE, LABELS)}


def task_for(found: dataset.Dataset) -> str:
    """Key of the task that a data set is for."""
    if isinstance(found, Boxed):
        return "detect"
    if isinstance(found, Masked):
        return "segment"
    return "multilabel" if found.several else "classify"


def task_named(name: str) -> Task:
    """The task of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r}", fix=f"one of {', '.join(TASKS)}")
    return TASKS[name]
