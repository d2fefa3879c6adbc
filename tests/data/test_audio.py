import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from resnetkit.data import audio
from resnetkit.data.audio import AudioPreprocess
from resnetkit.errors import DataError, UsageError

soundfile = pytest.importorskip("soundfile")
SHORT = AudioPreprocess(rate=8_000, seconds=0.5, mels=40)


def write(path, seconds=1.0, rate=8_000, hertz=440.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate), rate)
    return path


def test_clip_takes_the_middle_and_pads_on_both_sides():
    ramp = np.arange(4_001, dtype=np.float32) / 32768
    assert audio.clip(ramp, SHORT).tolist() == list(range(4000))
    assert audio.clip(np.repeat(ramp, 2)[:6000], SHORT).tolist() == [i // 2 for i in range(1000, 5000)]
    padded = audio.clip(ramp[1:4], SHORT)
    assert padded.shape == (4000,) and padded[1998:2001].tolist() == [1, 2, 3] and padded.sum() == 6
    assert audio.clip(np.array([2.0, -2.0]), SHORT)[1999:2001].tolist() == [32767, -32768]


def test_windows_reach_from_start_to_end():
    ramp = np.arange(14_321, dtype=np.float32) / 32768
    found = audio.windows(ramp, SHORT)
    assert found[0, 0] == 0 and found[-1, -1] == 14_320
    assert (np.diff(found[:, 0]) <= 2000).all() and len(found) == 7
    assert np.array_equal(audio.windows(ramp[:3000], SHORT)[0], audio.clip(ramp[:3000], SHORT))


def test_integers_and_floats():
    clip = np.array([-32768, -1, 0, 1, 32767], np.int16)
    assert np.array_equal(audio.to_integers(audio.to_floats(clip)), clip)


def test_normalise():
    clips = np.stack([audio.clip(np.random.default_rng(0).normal(0, 0.1, 9000), SHORT), np.zeros(4000, np.int16)])
    plain = audio.log_mel(clips, SHORT)
    assert plain.shape == (2, 1, 40, SHORT.frames) and plain.dtype == np.float32 and not plain[1].any()
    assert np.allclose(audio.normalise(clips, SHORT), (plain - 10) / 5)
    each = AudioPreprocess(8_000, 0.5, 40, mean=tuple(range(40)), std=(2.0,) * 40)
    assert np.allclose(audio.normalise(clips, each)[0, 0, 7], (plain[0, 0, 7] - 7) / 2)


def test_centred_spectra_do_not_know_the_microphone():
    from dataclasses import replace

    noise = np.random.default_rng(0).normal(0, 0.1, 3_000)
    clips = np.stack([audio.clip(gain * noise, SHORT) for gain in (1.0, 0.1)])
    plain, centred = audio.normalise(clips, SHORT), audio.normalise(clips, replace(SHORT, centre=1.0))
    loud = slice(10, 35)  # away from the silence around it
    assert np.abs(plain[0, :, :, loud] - plain[1, :, :, loud]).max() > 0.5
    assert np.abs(centred[0, :, :, loud] - centred[1, :, :, loud]).max() < 0.02
    assert np.isfinite(audio.normalise(np.zeros((1, 4_000), np.int16), replace(SHORT, centre=1.0))).all()


def test_read(tmp_path):
    path = write(tmp_path / "a.wav")
    samples = audio.read(path, SHORT)
    assert np.array_equal(samples, audio.read(str(path), SHORT)) and len(samples) == 8_000
    integers = audio.to_integers(samples)
    assert np.allclose(audio.read(np.stack([integers, integers], 1), SHORT), samples)
    for wrong in (3, np.zeros(0), np.zeros((2, 2, 2)), np.zeros(5, np.uint8), ["a.wav"]):
        with pytest.raises(UsageError, match="not a sound"):
            audio.read(wrong, SHORT)
    with pytest.raises(DataError, match="not numbers"):
        audio.read(np.array([np.nan]), SHORT)


def test_preprocess_refuses_what_cannot_be():
    for wrong in ({"seconds": 0}, {"mels": 4}, {"std": (0.0,)}, {"mean": (1.0, 2.0), "std": (1.0, 1.0)}, {"high": 9e3}):
        with pytest.raises(ValidationError):
            AudioPreprocess(**wrong)
    with pytest.raises(ValidationError, match="too many"):
        AudioPreprocess(rate=8_000, mels=256)
    assert AudioPreprocess(**SHORT.as_dict()) == SHORT


def test_thumbnail(tmp_path):
    for seconds in (1 / 8_000, 0.01, 3):
        with Image.open(io.BytesIO(audio.thumbnail(write(tmp_path / "a.wav", seconds)))) as image:
            assert image.size == (192, 96) and image.format == "JPEG"


def test_scan_folders(tmp_path):
    for name in ("yes/1.wav", "yes/2.flac", "no/1.wav"):
        write(tmp_path / name)
    (tmp_path / "no" / "notes.txt").write_text("no sound", encoding="utf-8")
    found = audio.scan(tmp_path)
    assert found.classes == ("no", "yes") and list(found.names) == ["no/1.wav", "yes/1.wav", "yes/2.flac"]
    assert found.ignored == ((".txt files", 1),)
    assert len(audio.read(found.files[2], SHORT)) == 8_000


def table(tmp_path, text):
    write(tmp_path / "a.wav", 3)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    return tmp_path / "t.csv"


def test_scan_parts(tmp_path):
    lines = "path,label,start,end,group,split\na.wav,b,0,1,x,train\na.wav,a,1,2.5,y,test\na.wav,b,2.5,,x,train\n"
    found = audio.scan(table(tmp_path, lines))
    assert list(found.names) == ["a.wav#t=0,1", "a.wav#t=1,2.5", "a.wav#t=2.5"]
    assert found.classes == ("a", "b") and found.targets.tolist() == [1, 0, 1] and found.groups.tolist() == [0, 1, 0]
    assert [len(audio.read(file, SHORT)) for file in found.files] == [8_000, 12_000, 4_000]
    assert found.select("test").names[0] == "a.wav#t=1,2.5"


def test_scan_parts_with_several_labels(tmp_path):
    found = audio.scan(table(tmp_path, "path,labels,start\na.wav,x|y,1\na.wav,,2\na.wav,y,\n"))
    assert found.several and found.targets.tolist() == [[1, 1], [0, 0], [0, 1]] and found.names[2] == "a.wav"


def test_a_table_without_times_is_the_usual_one(tmp_path):
    assert list(audio.scan(table(tmp_path, "path,label\na.wav,x\n")).names) == ["a.wav"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("path,start\na.wav,0\n", "line 1 has no column path, or none of label"),
        ("path,label,start\n", "no lines"),
        ("path,label,start\nb.wav,x,0\n", "line 2: there is no file 'b.wav'"),
        ("path,label,start\na.wav,,0\n", "line 2 has no label"),
        ("path,label,start,end\na.wav,x,2,1\n", "line 2 starts at 2 and ends at 1"),
        ("path,label,start,end\na.wav,x,zero,1\n", "line 2: could not convert"),
        ("path,label,start,end\na.wav,x,nan,1\n", "line 2 starts at nan"),
        ("path,label,start,end\na.wav,x,0,inf\n", "line 2 starts at 0 and ends at inf"),
        ("path,label,start\na.wav,x,1\na.wav,y,1\n", "line 3 names a.wav#t=1 again, after line 2"),
        ("path,label,start,split\na.wav,x,1,train\na.wav,y,0,\n", "line 3 has no split"),
        ("path,label,start,split\na.wav,x,1,dev\n", "line 2 has the split 'dev'"),
        ("path,label,start,group\na.wav,x,1,\na.wav,y,0,g\n", "line 2 has no group"),
    ],
)
def test_wrong_tables(tmp_path, text, what):
    with pytest.raises(DataError, match=what) as found:
        audio.scan(table(tmp_path, text))
    assert found.value.fix and "t.csv: " in str(found.value)
