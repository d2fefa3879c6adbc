import numpy as np

from resnetkit.training.augment import draws
from resnetkit.training.shared import Shared


def drawn(rng, n):
    return [
        rng.random((n, 3)),
        rng.uniform(1, 2, n),
        rng.integers(0, 9, (n, 1)),
        rng.standard_normal((n, 4), np.float32),
    ]


def test_in_one_process_it_is_the_generator():
    alone = drawn(np.random.default_rng([3, 7]), 5)
    assert all(np.array_equal(a, b) for a, b in zip(drawn(Shared(draws(3, 7, 5)), 5), alone, strict=True))


def test_processes_draw_the_same_numbers():
    whole = drawn(Shared(draws(3, 7, 5)), 5)
    parts = [drawn(Shared(draws(3, 7, 5, part)), n) for part, n in ((slice(0, 2), 2), (slice(2, 5), 3))]
    for one, first, second in zip(whole, *parts, strict=True):
        assert np.array_equal(one, np.concatenate([first, second])) and one.dtype == first.dtype
