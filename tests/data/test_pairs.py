import pytest

from resnetkit.data.pairs import is_pairs, read
from resnetkit.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("1.wav", "2.wav"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def written(folder, *lines):
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


def test_read(folder):
    rows = read(written(folder, "a,b,same", "1.wav,2.wav,1", "2.wav,1.wav,"))
    assert [(row.a.name, row.b.name, row.same) for row in rows] == [("1.wav", "2.wav", True), ("2.wav", "1.wav", None)]
    rows = read(written(folder, "a,b,speaker_a,speaker_b", "1.wav,2.wav,x,y", "2.wav,1.wav,x,x"))
    assert [row.same for row in rows] == [False, True] and rows[0].speakers == ("x", "y")


def test_what_it_is_told_by(folder):
    assert is_pairs(written(folder, "a,b", "1.wav,2.wav"))
    assert not is_pairs(written(folder, "path,label", "1.wav,x")) and not is_pairs(folder / "1.wav")
    assert not is_pairs(folder / "gone.csv")


@pytest.mark.parametrize(
    "lines, what",
    [
        (["a,c", "1.wav,2.wav"], "line 1 has no columns a and b"),
        (["a,b"], "has no lines"),
        (["a,b", "1.wav,3.wav"], "line 2: there is no file '3.wav'"),
        (["a,b,same", "1.wav,2.wav,yes"], "line 2 has 'yes' in column 'same'"),
    ],
)
def test_what_is_wrong_is_said(lines, what, folder):
    with pytest.raises(DataError, match=what):
        read(written(folder, *lines))
