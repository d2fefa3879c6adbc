from pathlib import Path

import pytest

from resnetkit.data.columns import dataset_of, refuse_gaps
from resnetkit.data.table import Row
from resnetkit.errors import DataError

ROWS = [Row("b", ("10",), "train", "z"), Row("a", ("2",), "val", "y"), Row("c", ("10",), "train", "z")]


def test_columns():
    found = dataset_of(Path("r"), ROWS)
    assert found.classes == ("2", "10") and found.targets.tolist() == [1, 0, 1]
    assert list(found.names) == ["b", "a", "c"] and found.groups.tolist() == [1, 0, 1]
    assert found.given_splits == ("train", "val")
    assert dataset_of(Path("r"), [Row("a", ("x",), "")]).groups is None


def test_several_labels():
    found = dataset_of(Path("r"), [Row("a", ("x", "y"), ""), Row("b", (), "")], several=True)
    assert found.several and found.targets.tolist() == [[1, 1], [0, 0]]


def test_gaps():
    refuse_gaps(enumerate(ROWS), Path("t.csv"))
    for row, what in ((Row("d", ("x",), "", "z"), "no split"), (Row("d", ("x",), "val", ""), "no group")):
        with pytest.raises(DataError, match=f"line 9 has {what}"):
            refuse_gaps([(1, ROWS[0]), (9, row)], Path("t.csv"))
    with pytest.raises(DataError, match="split 'dev'"):
        refuse_gaps([(1, Row("d", ("x",), "dev"))], Path("t.csv"))
