"""A task is what is read times what is predicted: plain frozen values of functions, and one dict of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data import audio, dataset, image, text, tokens
from resnetkit.data.annotated import Boxed
from resnetkit.data.archive import Member
from resnetkit.data.duplicates import first_copies
from resnetkit.data.masks import Masked
from resnetkit.data.outlines import Outlined
from resnetkit.data.sources import Line
from resnetkit.data.text import Chosen
from resnetkit.errors import UsageError
from resnetkit.ops.intervals import Metric
from resnetkit.tasks import classes, labels
from resnetkit.tasks.recognise import recognised


class Scan(Protocol):
    """Reads a source of examples."""

    def __call__(
        self,
        source: Path,
        *,
        follow_links: bool = False,
        columns: Chosen = Chosen(),  # noqa: B008  frozen
    ) -> dataset.Dataset:
        """The examples in a source."""
        ...


@dataclass(frozen=True)
class Modality:
    """What is read.

    What a network is given follows from one frozen value, `preprocess`: a `data.image.Preprocess`, an `AudioPreprocess`
    or a `TextPreprocess`.

    Attributes:
        noun: what the samples are called.
        extensions: endings of the files that count.
        scan: a folder, archive or table to a Dataset; `follow_links` as in `data.dataset.scan`, `columns` of a table.
        prepared: the values in a model.json, and its path, to a `preprocess`.
        read: a path, bytes, or value in memory, to what `preprocess` takes.
        preprocess: that to one array of the shape of `preprocess`: of what is too long, the middle or the beginning.
        parts: likewise to arrays [W, *shape]: one, or the windows of what is too long for one, which count alike.
        normalise: a batch of these to the input of a network.
        inputs: a file that predict is given to what is read: itself, or each line of a table.
        thumbnail: a file to a small JPEG; None where there is nothing to be seen.
        copies: for each sample of a data set the first one that is the same; takes a number of threads too.
    """

    noun: str
    extensions: tuple[str, ...]
    scan: Scan
    prepared: Callable[[Mapping[str, Any], Path], Any]
    read: Callable[[Any, Any], Any]
    preprocess: Callable[[Any, Any], NDArray[Any]]
    parts: Callable[[Any, Any], NDArray[Any]]
    normalise: Callable[[NDArray[Any], Any], NDArray[Any]]
    inputs: Callable[[Path], Sequence[Path | Line]]
    thumbnail: Callable[[dataset.File], bytes] | None
    copies: Callable[[dataset.Dataset, int], NDArray[np.intp]]


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


def _scan_images(source: Path, *, follow_links: bool = False, columns: Chosen = Chosen()) -> dataset.Dataset:  # noqa: B008
    return dataset.scan(source, image.EXTENSIONS, follow_links=follow_links)


def _scan_sounds(source: Path, *, follow_links: bool = False, columns: Chosen = Chosen()) -> dataset.Dataset:  # noqa: B008
    return audio.scan(source, follow_links=follow_links)


def _scan_texts(source: Path, *, follow_links: bool = False, columns: Chosen = Chosen()) -> dataset.Dataset:  # noqa: B008
    return text.examples(source, columns, follow_links=follow_links)


def _squares(picture: image.Picture, preprocess: image.Preprocess) -> NDArray[np.uint8]:
    return image.pixels(picture, preprocess)[None]


def _tokens(found: str, preprocess: tokens.TextPreprocess) -> NDArray[np.uint16]:
    return tokens.tokens(found, preprocess)[None]


def _itself(path: Path) -> Sequence[Path | Line]:
    return [path]


def _lines(path: Path) -> Sequence[Path | Line]:
    return text.lines(path) if text.is_table(path) else [path]


def _alike(found: dataset.Dataset, threads: int) -> NDArray[np.intp]:
    return text.first_alike(found.texts or ())


IMAGE = Modality(
    noun="images",
    extensions=image.EXTENSIONS,
    scan=_scan_images,
    prepared=image.preprocess_from,
    read=_read_image,
    preprocess=image.pixels,
    parts=_squares,
    normalise=image.normalise,
    inputs=_itself,
    thumbnail=image.thumbnail,
    copies=first_copies,
)
SOUND = Modality(
    noun=audio.NOUN,
    extensions=audio.EXTENSIONS,
    scan=_scan_sounds,
    prepared=audio.preprocess_from,
    read=audio.read,
    preprocess=audio.clip,
    parts=audio.windows,
    normalise=audio.normalise,
    inputs=_itself,
    thumbnail=audio.thumbnail,
    copies=first_copies,
)
TEXT = Modality(
    noun=text.NOUN,
    extensions=(*text.EXTENSIONS, *text.TABLES),
    scan=_scan_texts,
    prepared=tokens.preprocess_from,
    read=tokens.read,
    preprocess=tokens.tokens,
    parts=_tokens,
    normalise=tokens.normalise,
    inputs=_lines,
    thumbnail=None,
    copies=_alike,
)
MODALITIES = {modality.noun: modality for modality in (IMAGE, SOUND, TEXT)}
CLASSES = Target(
    classes.prepare, classes.encode, classes.decode, classes.judge, classes.text, classes.metrics, classes.HEADLINE
)
LABELS = Target(
    labels.prepare, labels.encode, labels.decode, labels.judge, labels.text, labels.metrics, labels.HEADLINE
)

TASKS = {
    "classify": Task(IMAGE, CLASSES),
    "multilabel": Task(IMAGE, LABELS),
    "sound": Task(SOUND, CLASSES),
    "sound-multilabel": Task(SOUND, LABELS),
    "text": Task(TEXT, CLASSES),
    "text-multilabel": Task(TEXT, LABELS),
}


def task_for(found: dataset.Dataset) -> str:
    """Key of the task that a data set is for."""
    if isinstance(found, Outlined):
        return "instances"
    if isinstance(found, Boxed):
        return "detect"
    if isinstance(found, Masked):
        return "segment"
    target = LABELS if found.several else CLASSES
    fitting = (key for key, task in TASKS.items() if task.modality.noun == found.noun and task.target is target)
    return next(fitting)


def modality_of(source: Path, columns: Chosen = Chosen()) -> Modality:  # noqa: B008  frozen
    """What a source holds, told by names; images where nothing tells."""
    return MODALITIES[recognised(source, columns)]


def task_named(name: str) -> Task:
    """The task of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r}", fix=f"one of {', '.join(TASKS)}")
    return TASKS[name]
