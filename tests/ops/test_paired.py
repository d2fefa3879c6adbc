"""McNemar's exact test, and how many samples would tell a difference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resnetkit.ops.paired import mcnemar, samples_needed, sign_flips


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 5), (1, 9), (9, 1), (0, 6), (20, 45)])
def test_the_p_value_is_that_of_coins(only_a: int, only_b: int) -> None:
    total, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(total, i) for i in range(fewer + 1)) / 2**total
    assert mcnemar(only_a, only_b) == pytest.approx(min(1, 2 * tail))


def test_so_many_samples_find_the_difference_four_times_in_five() -> None:
    """Drawn anew 2,000 times: the normal approximation of the formula is close to the exact test."""
    needed = samples_needed(12, 24, 200)
    assert needed is not None
    draws = np.random.default_rng(0).multinomial(needed, [0.06, 0.12, 0.82], 2_000)
    power = np.mean([mcnemar(int(a), int(b)) < 0.05 for a, b, _ in draws])
    assert 0.74 < power < 0.84
    assert (
        samples_needed(24, 12, 200) == needed and samples_needed(7, 7, 100) is None and samples_needed(0, 0, 9) is None
    )


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 4), (3, 3), (0, 10), (12, 30)])
def test_groups_of_one_are_mcnemars(only_a: int, only_b: int) -> None:
    differences = np.repeat([-1, 1, 0], [only_a, only_b, 7])
    assert sign_flips(differences) == pytest.approx(mcnemar(only_a, only_b), abs=0.01)


def test_many_images_of_one_person_are_one_witness() -> None:
    """40 images that B alone has right, of two people: as likely as two coins falling alike."""
    assert sign_flips(np.array([20, 20])) == 0.5
    assert mcnemar(0, 40) < 1e-9
    few, many = sign_flips(np.array([3, 2, -1] * 4)), sign_flips(np.array([3, 2, -1] * 8))
    assert 0.05 > few > many > 0
