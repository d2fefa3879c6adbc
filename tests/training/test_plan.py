"""Plans: what fits a time limit is chosen, and what is predicted adds up."""

from __future__ import annotations

import pytest

from resnetkit.training.plan import MARGIN, Choice, Costs, choose

COSTS = Costs(forward=0.08, trunk=0.066, tail=0.04, step=0.23)  # ResNet-34 at 224 px on two cores, seconds an image


def chosen(minutes: float, train: int = 1_000, wanted: int = 10) -> Choice:
    return choose(COSTS, (train, 150), 5_120, wanted, 60 * minutes)


def test_more_time_buys_more() -> None:
    head, layer4, whole = chosen(1), chosen(10), chosen(60)
    assert (head.views, head.layer4_epochs, head.epochs) == (0, 0, 0) and head.seconds.keys() == {"head"}
    assert layer4.views >= 2 and layer4.layer4_epochs >= 2 * layer4.views and not layer4.epochs
    assert whole.epochs >= 3 and not whole.views
    assert chosen(600).epochs == 10, "no more than is wanted"


@pytest.mark.parametrize("minutes", [5, 8, 10, 15, 20, 40, 90])
@pytest.mark.parametrize("train", [300, 1_000, 2_000])
def test_the_prediction_keeps_the_limit(minutes: float, train: int) -> None:
    choice = chosen(minutes, train)
    if choice.views or choice.epochs:
        assert sum(choice.seconds.values()) <= MARGIN * 60 * minutes


def test_few_wanted_epochs_are_enough() -> None:
    assert chosen(60, wanted=1).epochs == 1 and chosen(60, wanted=0).epochs == 0
