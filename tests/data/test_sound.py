import builtins
import io
import struct

import numpy as np
import pytest

from resnetkit.data import sound
from resnetkit.data.archive import members
from resnetkit.errors import DataError, ResourceError

soundfile = pytest.importorskip("soundfile")


def tone(rate=16_000, seconds=1.0, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def content(samples, rate=16_000, form="WAV", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def write(path, samples, rate=16_000, form="WAV", subtype=None):
    path.write_bytes(content(samples, rate, form, subtype))
    return path


def close(a, b, most=0.01):
    """Equal but for the edges, where a filter has nothing to look at."""
    n = min(len(a), len(b))
    return abs(len(a) - len(b)) < 0.05 * n and np.abs(a[400 : n - 400] - b[400 : n - 400]).max() < most


@pytest.mark.parametrize(
    ("form", "subtype", "most"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "DOUBLE", 1e-6),
        ("WAV", "ULAW", 0.02),
        ("WAV", "ALAW", 0.02),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.02),
        ("OGG", "OPUS", 0.05),
        ("MP3", None, 0.05),
    ],
)
def test_formats(tmp_path, form, subtype, most):
    path = write(tmp_path / "a.bin", tone(), form=form, subtype=subtype)  # whatever the file is called
    assert close(sound.read(path, 16_000), tone(), most)
    assert np.array_equal(sound.read(path, 16_000), sound.read(path.read_bytes(), 16_000))
    assert sound.stored(path).rate == 16_000


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_rates(rate):
    samples = sound.read(content(tone(rate), rate), 16_000)
    assert abs(len(samples) - 16_000) <= 1 and close(samples, tone(), 2e-3)


def test_channels_are_mixed_by_their_mean():
    left, right = tone(), tone(hertz=1000)
    assert np.allclose(sound.read(content(np.stack([left, right], 1)), 16_000), (left + right) / 2, atol=1e-4)
    eight = content(np.stack([left] * 8, 1), form="WAV")
    assert np.allclose(sound.read(eight, 16_000), left, atol=1e-4)


def test_blocks_make_no_difference(monkeypatch):
    data = content(tone(44_100, 3), 44_100)
    whole = sound.read(data, 16_000)
    monkeypatch.setattr(sound, "BLOCK", 1000)
    assert np.allclose(sound.read(data, 16_000), whole, atol=1e-6)


def test_parts(tmp_path):
    path = write(tmp_path / "a.wav", tone(seconds=3))
    name = sound.part_name(str(path), 1, 2.5)
    assert name == f"{path}#t=1,2.5" and sound.part_name("a", 0.25, None) == "a#t=0.25"
    assert sound.part_name("a", 10, 20) == "a#t=10,20"
    assert np.array_equal(sound.read(name, 16_000), sound.read(path, 16_000)[16_000:40_000])
    assert len(sound.read(f"{path}#t=2", 16_000)) == 16_000
    for wrong in ("#t=1,4", "#t=4", "#t=2,2", "#t=2,1"):
        with pytest.raises(DataError, match=r"a\.wav#t=.*has 3\.000 seconds"):
            sound.read(f"{path}{wrong}", 16_000)
    odd = write(tmp_path / "b.wav#t=1", tone(seconds=0.5))
    assert len(sound.read(odd, 16_000)) == 8_000, "a file may be called so"


def test_in_an_archive(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one/a.wav", content(tone()))
    member = members(tmp_path / "a.zip")["one/a.wav"]
    assert np.array_equal(sound.read(member, 16_000), sound.read(content(tone()), 16_000))


WAV = content(tone())
STEREO = np.zeros((10, 9), np.float32)
FAULTS = {
    "empty": (b"", "is empty"),
    "header only": (content(np.zeros(0)), "no samples"),
    "half a header": (WAV[:20], "cannot be read"),
    "no header": (b"RIFF" + bytes(4) + b"WAVE", "cannot be read"),
    "truncated": (WAV[:10_000], "cut short"),
    "truncated flac": (content(tone(), form="FLAC")[:5_000], "cut short|cannot be read"),
    "text": (b"hello, this is no sound", "not WAV, FLAC, OGG or MP3"),
    "other sound": (content(tone(), form="AU"), "not WAV, FLAC, OGG or MP3"),
    "adpcm": (content(tone(), subtype="IMA_ADPCM"), "coded as IMA_ADPCM"),
    "nan": (content(np.array([0, np.nan, 0]), subtype="FLOAT"), "not numbers"),
    "infinite": (content(np.array([0, np.inf, 0]), subtype="FLOAT"), "not numbers"),
    "1 Hz": (content(tone(), 1), "1 samples a second"),
    "1 MHz": (content(tone(), 1_000_000), "1,000,000 samples a second"),
    "nine channels": (content(STEREO), "9 channels"),
    "id3 and nothing": (b"ID3" + bytes(100), "cannot be read|no samples"),
    "noise as mp3": (b"\xff\xfb" + np.random.default_rng(0).bytes(5000), "cannot be read|no samples"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(tmp_path, name):
    data, what = FAULTS[name]
    (tmp_path / "bad.wav").write_bytes(data)
    answers = set()
    for _ in range(2):
        with pytest.raises(DataError, match=what) as found:
            sound.read(tmp_path / "bad.wav", 16_000)
        answers.add(str(found.value))
    assert len(answers) == 1 and "bad.wav: " in answers.pop() and found.value.fix


def test_what_was_written_to_a_pipe():
    size = 0xFFFFFFFF
    at = WAV.index(b"data") + 4
    streamed = WAV[:4] + struct.pack("<I", size) + WAV[8:at] + struct.pack("<I", size) + WAV[at + 4 :]
    assert len(sound.read(streamed, 16_000)) == 16_000


def test_too_long():
    with pytest.raises(DataError, match="longer than 2 seconds"):
        sound.read(content(tone(seconds=2.1)), 16_000, max_seconds=2)
    assert len(sound.read(content(tone(seconds=2)), 16_000, max_seconds=2)) == 32_000
    assert len(sound.read(content(np.array([0.5])), 16_000)) == 1


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"a\.wav: cannot be read: no such file"):
        sound.read(tmp_path / "a.wav", 16_000)


def test_without_the_package(monkeypatch):
    def refuse(name, *rest, **more):
        raise ImportError(name)

    monkeypatch.setattr(sound.importlib, "import_module", refuse)
    with pytest.raises(ResourceError, match=r"resnetkit\[audio\]"):
        sound.read(WAV, 16_000)
    assert builtins.__import__ is not refuse


def test_damage_is_told_or_harmless():
    """Bytes turned over anywhere: a DataError or finite samples, nothing else."""
    rng = np.random.default_rng(0)
    kinds = [WAV[:4000], content(tone(seconds=0.2), form="FLAC"), content(tone(seconds=0.2), form="OGG")]
    for data in [*kinds, content(tone(seconds=0.2), form="MP3")]:
        for _ in range(40):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), 5):
                damaged[at] = rng.integers(256)
            try:
                assert np.isfinite(sound.read(bytes(damaged), 16_000)).all()
            except DataError as error:
                assert error.fix
