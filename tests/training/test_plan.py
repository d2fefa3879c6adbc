"""Plans: what fits a time limit is chosen, and what is predicted adds up."""

from __future__ import annotations

import dataclasses
import math

import pytest

from resnetkit.training.plan import MARGIN, UPPER, Costs, Stages, choose, epochs_that_fit, predicted

COSTS = Costs(
    forward=0.08, features=0.08, trunk=0.066, top=0.014, tail=0.04, step=0.23, upper=0.15
)  # ResNet-34 at 224 px on two cores, seconds an image


def chosen(minutes: float, train: int = 1_000, wanted: int = 10) -> Stages:
    return choose(COSTS, (train, 150), 5_120, wanted, 60 * minutes)


def test_more_time_buys_more() -> None:
    head, layer4, upper, whole = chosen(1), chosen(8), chosen(14), chosen(60)
    assert head == Stages(True, 0, 0, 0)
    assert layer4.views >= 2 and layer4.layer4_epochs >= 2 * layer4.views and not layer4.epochs
    assert upper.epochs >= 3 and upper.frozen == UPPER and not upper.views
    assert whole.epochs >= 5 and whole.frozen == "none" and not whole.views
    assert chosen(600).epochs == 10, "no more than is wanted"


@pytest.mark.parametrize("minutes", [5, 8, 10, 15, 20, 40, 90])
@pytest.mark.parametrize("train", [300, 1_000, 2_000])
def test_the_prediction_keeps_the_limit(minutes: float, train: int) -> None:
    stages = chosen(minutes, train)
    if stages.views or stages.epochs:
        assert sum(predicted(COSTS, (train, 150), 5_120, stages).values()) <= MARGIN * 60 * minutes


def test_few_wanted_epochs_are_enough() -> None:
    assert chosen(60, wanted=1).epochs == 1 and chosen(60, wanted=0).epochs == 0
    assert chosen(60, wanted=0).layer4_epochs, "no epochs of the whole network leave the time to layer4"


def test_what_is_not_done_takes_no_time() -> None:
    whole = predicted(COSTS, (100, 10), 5_120, Stages(False, 0, 0, 2))
    assert [name for name, seconds in whole.items() if seconds] == ["all"]
    assert whole["all"] == pytest.approx(2 * (100 * 0.23 + 10 * 0.08))
    stored = predicted(COSTS, (100, 10), 5_120, Stages(True, 4, 8, 0))
    assert stored["features"] == pytest.approx(410 * 0.066) and stored["layer4"] == pytest.approx(
        8 * (100 + 10 / 3) * 0.04
    )


def test_statistics_are_renewed_on_some_images_before_features_are_made() -> None:
    renewing, stages = dataclasses.replace(COSTS, statistics=0.1), Stages(True, 0, 0, 1)
    seconds = [predicted(renewing, (count, 10), 5_120, stages)["statistics"] for count in (100, 10_000)]
    assert seconds == pytest.approx([10, 51.2])
    assert not predicted(renewing, (100, 10), 5_120, Stages(False, 0, 0, 1))["statistics"]


def test_features_take_what_their_engine_takes() -> None:
    quick = dataclasses.replace(COSTS, features=0.04, trunk=0.033)
    alone = predicted(quick, (100, 10), 5_120, Stages(True, 0, 0, 0))
    assert alone["features"] == pytest.approx(110 * 0.04)
    stored = [predicted(costs, (100, 10), 5_120, Stages(True, 4, 8, 0)) for costs in (COSTS, quick)]
    assert stored[1]["features"] == pytest.approx(410 * 0.033) and stored[0]["head"] == stored[1]["head"]


def test_what_is_frozen_already_is_no_choice() -> None:
    """Stages that the user has frozen stay as they are, and no plan freezes others."""
    frozen = dataclasses.replace(COSTS, upper=math.inf)
    found = [choose(frozen, (1_000, 150), 5_120, 10, 60 * minutes) for minutes in (1, 10, 14, 60)]
    assert {stages.frozen for stages in found} == {"none"} and found[-1].epochs


def test_the_time_limit_cuts_epochs() -> None:
    assert epochs_that_fit(50, 100, 0.5, 600) == 10
    assert epochs_that_fit(5, 100, 0.5, 600) == 5
    assert epochs_that_fit(5, 100, 0.5, 1) == 1
