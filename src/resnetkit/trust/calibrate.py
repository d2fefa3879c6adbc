"""Fit how far a model may be believed, on held-out samples that it has not learnt from."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from resnetkit.ops.calibration import (
    Calibration,
    Sets,
    Spread,
    aps_scores,
    ece,
    energy,
    kth_distance,
    lac_scores,
    unit,
)
from resnetkit.ops.intervals import Metric
from resnetkit.ops.metrics import binary_cross_entropy, cross_entropy, sigmoid, softmax
from resnetkit.tasks.task import Target

Floats = NDArray[np.floating]
LIMITS = (0.05, 20.0)  # of a temperature
NUMBERS = 4_000_000  # logits that fit a temperature, about a second
BANK = 2_000  # embeddings that are kept: 2 MB of ResNet-34's
CHI2_95 = 3.841458820694124  # of one degree of freedom
NEIGHBOURS = 5
FALSE_ALARMS = 0.05


def calibrate(
    target: Target, outputs: tuple[Floats, Floats], targets: NDArray[np.integer], sets: Sets = "lac"
) -> Calibration | None:
    """Fit the temperature, the conformal scores and the novelty score; None without samples, or if some are no numbers.

    Args:
        target: what is predicted.
        outputs: logits [n, K] and embeddings [n, D] of held-out samples.
        targets: class indices [n], or which labels are present [n, K].
        sets: how sets of classes are made.
    """
    logits, embeddings = outputs
    n = len(targets)
    if not n or not (np.isfinite(logits).all() and np.isfinite(embeddings).all()):
        return None
    factor = temperature(target, logits, targets)
    scaled = logits / factor
    order = np.random.default_rng(0).permutation(n)
    known, others = order[: min(n // 2, BANK)], order[min(n // 2, BANK) :]
    bank = unit(embeddings[known]).astype(np.float16)
    k = min(NEIGHBOURS, max(0, len(known) - 1))
    # each is itself its nearest
    distances = kth_distance(bank.astype(np.float32), bank.astype(np.float32), k + 1)
    found = Calibration(
        temperature=factor,
        n=n,
        sets=sets,
        false_alarms=FALSE_ALARMS,
        neighbours=k,
        before=_error(logits, targets),
        after=_error(scaled, targets),
        scores=np.zeros(0) if targets.ndim == 2 else np.sort(_conformal(softmax(scaled), targets, sets)),
        energy=_spread(energy(scaled[known])),
        distance=_spread(distances),
        strangeness=np.zeros(0),
        bank=bank,
    )
    if k < 1:
        return replace(found.temperature_only(), scores=found.scores)
    return replace(found, strangeness=np.sort(found.strange(scaled[others], embeddings[others])))


def temperature(target: Target, logits: Floats, targets: NDArray[np.integer]) -> float:
    """The temperature with the least cross-entropy (arXiv 1706.04599, section 4.2), within 0.05 and 20.

    One sample more is counted, of which every class is as likely: where all answers are right, the model would else be
    made surer than n samples can say. It is 1 where the samples do not tell it from that (likelihood ratio, 5 %): few,
    which also chose the epoch, would make scores worse as often as better.

    Args:
        target: what is predicted.
        logits: [n, K].
        targets: class indices [n], or which labels are present [n, K].
    """
    from scipy.optimize import minimize_scalar

    most = max(1_000, NUMBERS // logits.shape[1])
    if len(logits) > most:
        rows = np.random.default_rng(0).permutation(len(logits))[:most]
        logits, targets = logits[rows], targets[rows]

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(target.judge(scaled, targets).losses.sum() + _of_any_class(scaled, targets.ndim == 2))

    bounds = tuple(math.log(limit) for limit in LIMITS)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x) if 2 * (loss(0.0) - found.fun) > CHI2_95 else 1.0


def _of_any_class(logits: Floats, several: bool) -> float:
    """Mean cross-entropy of samples of which every class is as likely."""
    if several:
        return float(binary_cross_entropy(logits, np.full(logits.shape, 0.5)).mean())
    first = np.zeros(len(logits), np.int64)
    return float((cross_entropy(logits, first) + logits[:, 0] - logits.mean(1)).mean())


def _spread(values: Floats) -> Spread:
    return (float(values.mean()), float(values.std())) if len(values) else (0.0, 0.0)


def _error(logits: Floats, targets: NDArray[np.integer]) -> Metric:
    if targets.ndim == 2:
        return ece(sigmoid(logits), targets.astype(bool))
    return ece(softmax(logits).max(-1), logits.argmax(-1) == targets)


def _conformal(probabilities: Floats, targets: NDArray[np.integer], sets: Sets) -> Floats:
    if sets == "lac":
        return lac_scores(probabilities, targets)
    return aps_scores(probabilities, targets, np.random.default_rng(0).uniform(size=len(targets)))
