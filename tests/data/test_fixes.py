"""A fix file leaves images out or gives them another label; every complaint names the line."""

from pathlib import Path

import numpy as np
import pytest

from resnetkit.data.dataset import Dataset
from resnetkit.data.fixes import apply, read
from resnetkit.data.names import Names
from resnetkit.errors import DataError

NAMES = ("cat/1.png", "cat/=2.png", "dog/3.png", "dog/ 4,\n.png", "=5.png", "dog/\udc80.png")
DATA = Dataset(Path("photos"), ("cat", "dog", "emu"), Names(NAMES), np.array([0, 0, 1, 1, 1, 1]), np.zeros(6, np.int8))


def fixed(tmp_path, text, data=DATA):
    path = tmp_path / "fixes.csv"
    path.write_text(text, encoding="utf-8")
    return apply(data, read(path), path)


def test_images_are_left_out_and_relabelled(tmp_path):
    found = fixed(
        tmp_path, "path,action,label,reason\ncat/1.png,relabel,dog,looks like one\ndog/3.png,exclude,,blurred\n"
    )
    assert list(found.names) == [NAMES[0], *NAMES[1:2], *NAMES[3:]]
    assert found.targets.tolist() == [1, 0, 1, 1, 1] and found.classes == DATA.classes
    assert DATA.targets.tolist() == [0, 0, 1, 1, 1, 1], "the data set itself is as it was"


def test_names_are_those_of_the_check(tmp_path):
    """Escaped as in messages, and with the ' that keeps a spreadsheet from taking a name for a formula."""
    text = 'path,action\n"dog/ 4,\\n.png",exclude\n\'=5.png,exclude\ndog/\\udc80.png,exclude\ncat/=2.png,exclude\n'
    assert list(fixed(tmp_path, text).names) == ["cat/1.png", "dog/3.png"]
    assert list(fixed(tmp_path, "path,action\n=5.png,exclude\n").names) == [n for n in NAMES if n != "=5.png"]


def test_labels_that_a_spreadsheet_would_take_for_a_formula(tmp_path):
    odd = Dataset(DATA.root, ("'=a", "=a", "b"), DATA.names, DATA.targets, DATA.splits)
    found = fixed(tmp_path, "path,action,label\ncat/1.png,relabel,'=a\ndog/3.png,relabel,b\n", odd)
    assert found.targets[[0, 2]].tolist() == [0, 2]
    plain = Dataset(DATA.root, ("=a", "b"), DATA.names, DATA.targets, DATA.splits)
    assert fixed(tmp_path, "path,action,label\ndog/3.png,relabel,'=a\n", plain).targets[2] == 0


def test_several_labels(tmp_path):
    several = Dataset(DATA.root, DATA.classes, DATA.names, np.eye(6, 3, dtype=np.int8), DATA.splits)
    found = fixed(tmp_path, "path,action,label\ncat/1.png,relabel,dog|emu\ndog/3.png,relabel,\n", several)
    assert found.targets[[0, 2]].tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "line 1 has no column action or path"),
        ("path,label\n", "line 1 has no column action"),
        ("path,action\n,exclude\n", "line 2 has no path"),
        ("path,action\ncat/1.png,delete\n", "line 2 has the action 'delete'"),
        ("path,action\ncat/1.png\n", "line 2 has the action ''"),
        ("path,action\ncat/1.png,relabel\n", "line 2 has no label"),
        ("path,action\ncat/1.png,exclude\ncat/1.png,exclude\n", "line 3 names cat/1.png again, after line 2"),
        ("path,action\ncat/9.png,exclude\n", "line 2: there is no image cat/9.png in photos"),
        ("path,action,label\ncat/1.png,relabel,cow\n", "line 2: there is no class 'cow'"),
    ],
)
def test_complaints_name_the_line(tmp_path, text, what):
    with pytest.raises(DataError, match=what) as caught:
        fixed(tmp_path, text)
    assert caught.value.path == str(tmp_path / "fixes.csv") and caught.value.fix


def test_files_that_are_no_csv(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_bytes(b"path,action\n\xff\xfe,exclude\n")
    with pytest.raises(DataError, match="not a CSV in UTF-8"):
        read(tmp_path / "bad.csv")
