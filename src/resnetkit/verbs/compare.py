"""compare: two models and data with known answers to which is better, or that one cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnetkit import run
from resnetkit.data.dataset import Dataset
from resnetkit.errors import DataError, ModelError, UsageError
from resnetkit.files import resource_errors, write
from resnetkit.runtime.model import Model, load_classifier
from resnetkit.tasks.evaluate import Scores
from resnetkit.trust.compare import FLIPPED_COLUMNS, Comparison
from resnetkit.trust.compare import compare as compared
from resnetkit.verbs.console import note
from resnetkit.verbs.eval import part_of, run_on, score_split


def compare(
    a: str | Path,
    b: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    out: str | Path | None = None,
    backend: str = "auto",
    device: str = "auto",
    quiet: bool = False,
) -> Comparison:
    """Compare two models on the same images with known answers, image by image.

    Args:
        a: a run folder or a model folder.
        b: another one, of the same classes.
        data: a folder of class folders, an archive of them, or a CSV.
        split: as for `evaluate`; of two runs that cut their test images from this data, both must have cut the same.
        out: folder for comparison.json and flipped.csv; must not exist.
        backend: what runs the networks, "auto" (the fastest), "torch", "onnxruntime", "openvino", "ncnn" or "native".
        device: where, "auto", "cpu", "cuda", ...
        quiet: no notes and no progress on stderr.

    Raises:
        ModelError, DataError, UsageError: see `errors`.
    """
    if out is not None:
        run.refuse(Path(out), fix="choose another --out")
    model_a, model_b = (load_classifier(path, backend=backend, device=device) for path in (a, b))
    _refuse_other_classes(model_a, model_b, Path(b))
    source = Path(data)
    run_a, run_b = (run_on(Path(path), source) for path in (a, b))
    _, chosen, first = part_of(model_a, run_a or run_b, source, split)
    _, _, second = part_of(model_b, run_b or run_a, source, split)
    if list(first.names) != list(second.names):
        fix = "give the data a test folder; --split all takes those that they were trained on too"
        raise DataError(f"holds other test {first.noun} for each of the two models", path=source, fix=fix)
    note(f"{source}: {len(first):,} {first.noun} ({chosen})", quiet)
    if chosen == "all" and (run_a or run_b):
        note(f"take care: a model that was trained on some of these {first.noun} knows their answers", quiet)
    scores = score_split(model_a, (chosen, first), quiet)
    both = _read_by_both(scores, _in_order_of(scores, score_split(model_b, (chosen, second), quiet)))
    found = compared(*both, _groups_of(first, both[0].paths))
    if out is not None:
        with resource_errors(out):
            Path(out).mkdir(parents=True, exist_ok=True)
        run.write_json(Path(out) / "comparison.json", found.as_dict())
        write(Path(out) / "flipped.csv", run.as_csv(FLIPPED_COLUMNS, found.rows()))
    return found


def _groups_of(part: Dataset, paths: Sequence[str]) -> NDArray[np.integer] | None:
    """The group of each sample that was read, where groups are given."""
    if part.groups is None:
        return None
    group = dict(zip(part.names, part.groups.tolist(), strict=True))
    return np.array([group[path] for path in paths], np.int64)


def _refuse_other_classes(a: Model, b: Model, path: Path) -> None:
    if a.checkpoint.meta.task != b.checkpoint.meta.task:
        what = f"is a model of the task {b.checkpoint.meta.task}, the other one of {a.checkpoint.meta.task}"
        raise UsageError(what, path=path, fix="compare two of one task")
    other = sorted(set(a.classes) ^ set(b.classes))
    if other:
        raise ModelError(f"knows other classes: only one of both has {other[0]!r}", path=path, fix="compare alike ones")


def _in_order_of(a: Scores, b: Scores) -> Scores:
    """B's scores with A's classes, in A's order."""
    order = [b.classes.index(name) for name in a.classes]
    targets = b.targets[:, order] if b.targets.ndim == 2 else np.argsort(order)[b.targets]
    return replace(b, classes=a.classes, logits=b.logits[:, order], targets=targets)


def _read_by_both(a: Scores, b: Scores) -> tuple[Scores, Scores]:
    """The samples that both could read; what one of them could not is failed for both."""
    failed = tuple(dict([*a.failed, *b.failed]).items())
    lost = {path for path, _ in failed}

    def rest(scores: Scores) -> Scores:
        rows = [i for i, path in enumerate(scores.paths) if path not in lost]
        paths = tuple(scores.paths[i] for i in rows)
        return replace(scores, paths=paths, targets=scores.targets[rows], logits=scores.logits[rows], failed=failed)

    return (rest(a), rest(b)) if lost else (a, b)
