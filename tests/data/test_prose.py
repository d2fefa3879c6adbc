import pytest

from resnetkit.data import prose
from resnetkit.errors import DataError

WORDS = "naïve\nΣ 日本\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_announce_themselves(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(WORDS.encode(encoding))
    assert prose.read(tmp_path / "a.txt") == WORDS == prose.read(WORDS.encode(encoding))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"one\ntwo\nna\xefve", "line 3 is not UTF-8: byte 0xef at 10"),
        (b"\xef\xbb\xbfone\nna\xefve", "line 2 is not UTF-8: byte 0xef at 9"),
        (b"\xff\xfea", "not the UTF-16"),
        (b"one\nt\0wo", "line 2 holds a NUL"),
        ("a".encode("utf-16-le"), "line 1 holds a NUL"),
    ],
)
def test_others_are_refused(content, what):
    with pytest.raises(DataError, match=what) as found:
        prose.decode(content, "a.txt")
    assert found.value.fix and str(found.value).startswith("a.txt: ")


def test_unreadable(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"a\.txt: cannot be read: no such file"):
        prose.read(tmp_path / "a.txt")
    monkeypatch.setattr(prose, "MAX_BYTES", 3)
    with pytest.raises(DataError, match="over 3"):
        prose.read(b"four")


def test_odd_values():
    assert prose.refuse_odd("Σ", "a") == "Σ"
    for value, what in ((3, "int where a text"), (None, "NoneType"), ("\ud800", "half of a character")):
        with pytest.raises(DataError, match=f"line 7 .*{what}"):
            prose.refuse_odd(value, "a", 7)
    with pytest.raises(DataError, match="1,000,001 characters"):
        prose.refuse_odd("a" * 1_000_001, "a")
