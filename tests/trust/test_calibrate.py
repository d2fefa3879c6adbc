"""What is fitted on held-out samples: a temperature that helps, sets that keep their promise, and what is novel."""

import math

import numpy as np
import pytest

from resnetkit.ops.calibration import Calibration, calibration_from, samples_for
from resnetkit.ops.metrics import cross_entropy, softmax
from resnetkit.tasks.task import TASKS
from resnetkit.trust.calibrate import calibrate, temperature

CLASSES, WIDTH = 5, 16
TARGET = TASKS["classify"].target


def known(n, seed=0, sharpness=3.0):
    """Logits of a model that is `sharpness` times too sure, embeddings around a centre a class, and the truth."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, CLASSES))
    targets = (rng.random(n)[:, None] > softmax(logits).cumsum(1)).sum(1).clip(0, CLASSES - 1)
    centres = np.eye(CLASSES, WIDTH)
    embeddings = np.abs(centres[logits.argmax(1)] + 0.1 * rng.normal(size=(n, WIDTH)))
    return sharpness * logits.astype(np.float32), embeddings.astype(np.float32), targets


def fitted(n=400, sets="lac", **changes):
    logits, embeddings, targets = known(n, **changes)
    return calibrate(TARGET, (logits, embeddings), targets, sets)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_is_found(sharpness):
    logits, _, targets = known(4000, sharpness=sharpness)
    assert temperature(TARGET, logits, targets) == pytest.approx(sharpness, rel=0.1)


def test_the_loss_on_new_samples_falls_and_so_does_the_error():
    found = fitted()
    logits, _, targets = known(4000, seed=1)
    scaled = logits / found.temperature
    assert cross_entropy(scaled, targets).mean() < cross_entropy(logits, targets).mean()
    assert found.after.value < found.before.value
    metrics = [TARGET.metrics(each, targets, tuple("abcde")) for each in (logits, scaled)]
    assert metrics[1]["ece"].value < metrics[0]["ece"].value
    assert metrics[1]["accuracy"].value == metrics[0]["accuracy"].value


@pytest.mark.parametrize("n", [1, 5, 50])
def test_few_right_answers_make_nobody_sure(n):
    """All n are right: a new one is wrong once in n + 1 times or so."""
    logits = 3 * np.eye(CLASSES, dtype=np.float32)[np.arange(n) % CLASSES]
    factor = temperature(TARGET, logits, np.arange(n) % CLASSES)
    error = 1 - softmax(logits / factor).max()
    assert 0.2 / (n + 1) < error < 2 / (n + 1)


def test_of_several_labels():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(500, 3))
    present = (rng.random((500, 3)) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    found = calibrate(TASKS["multilabel"].target, (4 * logits, rng.normal(size=(500, 8))), present)
    assert found.temperature == pytest.approx(4, rel=0.15) and found.after.value < found.before.value
    assert len(found.scores) == 0 and len(found.bank) == 250 == len(found.strangeness)


@pytest.mark.parametrize("sets", ["lac", "aps"])
def test_sets_keep_their_promise(sets):
    found = fitted(1000, sets)
    logits, _, targets = known(4000, seed=1)
    scaled = logits / found.temperature
    for coverage in (0.8, 0.95):
        inside = found.possible(scaled, coverage)
        assert inside[np.arange(4000), targets].mean() > coverage - 0.03
    assert found.possible(scaled, 0.95).sum() >= found.possible(scaled, 0.8).sum()


def test_known_samples_are_rarely_novel_and_others_are():
    found = fitted(1000)
    logits, embeddings, _ = known(2000, seed=1)
    strange = found.novelty(logits / found.temperature, embeddings)
    assert ((strange >= 0) & (strange < 1)).all()
    for share in (0.05, 0.2):
        assert (strange >= 1 - share).mean() == pytest.approx(share, abs=0.03)
    elsewhere = np.roll(np.eye(CLASSES, WIDTH), 8, 1)[np.arange(100) % CLASSES]
    flat = np.zeros((100, CLASSES))
    assert (found.novelty(flat, elsewhere) > 0.95).mean() > 0.95
    # either of both tells
    assert (found.novelty(logits[:100] / found.temperature, elsewhere) > 0.95).mean() > 0.95


@pytest.mark.parametrize("n", [38, 60, 400])
def test_false_alarms_are_as_rare_as_they_are_said_to_be(n):
    """Of 200 fits; with 19 to rank by, one in twenty is the least that can be said."""
    rates = []
    for seed in range(200):
        logits, embeddings, targets = known(n + 200, seed)
        found = calibrate(TARGET, (logits[:n], embeddings[:n]), targets[:n])
        assert found.knows_novelty
        rates.append(found.is_novel(found.novelty(logits[n:] / found.temperature, embeddings[n:])).mean())
    assert 0.02 < np.mean(rates) < 0.05 + 3.3 * np.std(rates) / np.sqrt(200)


def test_outputs_that_are_no_numbers_calibrate_nothing():
    logits, embeddings, targets = known(50)
    logits[3, 1] = np.nan
    assert calibrate(TARGET, (logits, embeddings), targets) is None


def test_what_was_not_calibrated_for_has_the_temperature_only():
    found = fitted(100)
    assert found.temperature_only().temperature == found.temperature
    assert not found.temperature_only().knows_novelty and len(found.temperature_only().scores) == 0
    assert calibration_from(*found.temperature_only().parts()).n == found.n


def test_the_bank_is_bounded(monkeypatch):
    monkeypatch.setattr("resnetkit.trust.calibrate.BANK", 50)
    found = fitted(200)
    assert len(found.bank) == 50 and len(found.scores) == found.n == 200
    assert len(found.strangeness) == 150


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_of_hardly_any_sample(n):
    found = fitted(n)
    if n == 0:
        assert found is None
        return
    assert found.n == n and math.isfinite(found.temperature)
    assert len(found.bank) == 0 and len(found.scores) == n < samples_for(0.95)
    assert not found.knows_novelty and calibration_from(*found.parts()).temperature == found.temperature


def test_there_and_back():
    found = fitted(60, "aps")
    values, arrays = found.parts()
    again = calibration_from(values, arrays)
    assert isinstance(again, Calibration) and again.parts()[0] == values
    logits, embeddings, _ = known(10, seed=2)
    np.testing.assert_array_equal(again.novelty(logits, embeddings), found.novelty(logits, embeddings))


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"temperature": "hot"},
        {"n": None},
        {"sets": "raps"},
        {"sets": ["lac"]},
        {"false_alarms": 1.5},
        {"neighbours": 60},
        {"neighbours": 10**400},
        {"before": 3},
        {"after": {}},
        {"scores": np.array([2.0, 1.0])},
        {"scores": np.array(["a"])},
        {"energy": [math.nan, 1.0]},
        {"distance": [1.0]},
        {"strangeness": np.array([2.0, 1.0])},
        {"energy": [0.0, -1.0]},
        {"distance": None},
        {"bank": np.full((30, WIDTH), math.inf)},
        {"bank": np.zeros(30)},
    ],
)
def test_what_is_none_is_refused(change):
    values, arrays = fitted(60).parts()
    (arrays if isinstance(next(iter(change.values())), np.ndarray) else values).update(change)
    with pytest.raises((KeyError, TypeError, ValueError, OverflowError)):
        calibration_from(values, arrays)
    with pytest.raises(KeyError):
        calibration_from({}, {})


def test_a_temperature_that_nobody_can_tell_from_one_is_one():
    logits, _, targets = known(100, sharpness=1.0)
    assert temperature(TARGET, logits, targets) == 1.0
