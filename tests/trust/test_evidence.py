"""The training images that are most like an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from resnetkit.data.dataset import Dataset
from resnetkit.data.names import Names
from resnetkit.ops.calibration import unit
from resnetkit.trust import evidence
from resnetkit.trust.evidence import Bank, nearest


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
@pytest.mark.parametrize("k", [1, 5, 80])
def test_blocks_find_what_sorting_finds(monkeypatch, block: int, k: int) -> None:
    monkeypatch.setattr(evidence, "BLOCK", block)
    rng = np.random.default_rng(0)
    bank = unit(rng.normal(size=(50, 8)).astype(np.float32))
    bank[20] = bank[3]  # of equal ones the first comes first
    queries = rng.normal(size=(6, 8)).astype(np.float32) * 100
    rows, similarities = nearest(queries, bank, k)
    exact = unit(queries).astype(np.float64) @ bank.T
    assert rows.shape == similarities.shape == (6, min(k, 50))
    np.testing.assert_allclose(similarities, -np.sort(-exact, 1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(similarities, np.take_along_axis(exact, rows, 1), atol=1e-6)
    twins = [list(row) for row in rows if 3 in row and 20 in row]
    assert all(row.index(3) < row.index(20) for row in twins)


def test_of_length_one_and_zeros_stay() -> None:
    found = unit(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    rows, similarities = nearest(np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32), 4)
    assert rows.shape == similarities.shape == (2, 0)


def test_a_file_is_not_its_own_neighbour(tmp_path: Path) -> None:
    names = Names(["a/0.png", "a/1.png", "b/2.png", "b/3.png"])
    dataset = Dataset(tmp_path, ("a", "b"), names, np.array([0, 0, 1, 1]), np.zeros(4, np.int8))
    embeddings = unit(np.array([[1, 0], [1, 0.1], [0, 1]], np.float32))
    bank = Bank(dataset, np.array([0, 1, 3]), embeddings, lambda target, classes: classes[int(target)])
    outside = bank.neighbours(tmp_path / "new.png", np.array([2, 0], np.float32), 2)
    assert [(each.file.name, each.label) for each in outside] == [("0.png", "a"), ("1.png", "a")]
    assert outside[0].similarity == pytest.approx(1)
    itself = bank.neighbours(tmp_path / "a" / ".." / "a" / "0.png", np.array([2, 0], np.float32), 2)
    assert [(each.file.name, each.label) for each in itself] == [("1.png", "a"), ("3.png", "b")]
    assert len(bank.neighbours(tmp_path / "new.png", np.array([2, 0], np.float32), 9)) == 3
