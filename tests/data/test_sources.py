import os
import pickle

from resnetkit.data.sources import Line, Part, part_name, part_of


def test_a_line_is_read_as_a_file():
    line = Line("train.csv#line=7", "héllo")
    assert os.fspath(line) == str(line) == "train.csv#line=7"
    assert line.open().read() == "héllo".encode() and pickle.loads(pickle.dumps(line)) == line


def test_a_part_is_told_from_other_parts(tmp_path):
    (tmp_path / "talk.wav").write_bytes(b"sound")
    name = part_name("talk.wav", 1.5, 4)
    part = part_of(tmp_path, name)
    assert name == "talk.wav#t=1.5,4" and part == Part(tmp_path / "talk.wav", "#t=1.5,4")
    assert os.fspath(part) == f"{tmp_path}/talk.wav#t=1.5,4"
    assert part.open().read() != part_of(tmp_path, part_name("talk.wav", 1.5, None)).open().read()


def test_a_file_may_be_called_so(tmp_path):
    (tmp_path / "a#t=1.wav").write_bytes(b"")
    (tmp_path / "b#t=2").write_bytes(b"")
    assert [part_of(tmp_path, name) for name in ("a#t=1.wav", "b#t=2", "c.wav")] == [None, None, None]
