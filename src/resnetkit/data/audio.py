"""Recordings: files to samples of one rate and length, and these to log-mel spectra, which is what a network takes.

`AudioPreprocess` is one frozen value; `read`, `clip` (or `windows`) and `normalise` under it are the only way from a
file to a tensor. A recording that is too short stands in the middle of silence; of one that is too long the middle is
taken, or windows that overlap by half or more, whose scores are to be averaged. Clips are held as 16-bit integers, as
most files are.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from resnetkit.data import dataset, sound
from resnetkit.data.archive import Member
from resnetkit.data.columns import dataset_of, refuse_gaps
from resnetkit.data.dataset import Dataset
from resnetkit.data.prepared import prepared_from
from resnetkit.data.sound import EXTENSIONS as EXTENSIONS
from resnetkit.data.sound import Samples
from resnetkit.data.sources import Part
from resnetkit.data.table import Row, split_labels
from resnetkit.errors import DataError, UsageError, printable
from resnetkit.files import read_errors
from resnetkit.ops.spectrum import Mel, bank, fbank

Clip = NDArray[np.int16]
NOUN = "sounds"
QUIET_FRAME = 7.0  # nepers of energy: 30 dB
TIMES = ("start", "end")
MOST_WINDOWS = 256  # of a recording, so that a few of an hour each fit the memory
START = "start it with path,label,start,end (seconds; an empty end is the end of the file)"


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class AudioPreprocess:
    """From a recording to the input of a network.

    Attributes:
        rate: samples a second.
        seconds: length of what the network sees.
        mels: number of bands.
        window, hop: length of a frame and from one to the next, in seconds.
        low, high: edges of the bands in Hz; high 0 is half the rate.
        mean, std: of log-mel values, one for all bands or one a band. The defaults are those of speech near full scale.
        form: "mel", the log-mel spectrum, or "wave", the samples themselves.
        level: whether the loudness of a clip, that of its loud frames, is taken out first, and what lies far below it
            counts as silence.
        centre: likewise the mean of each band, and with it what a microphone or a room adds: 0 none of it, 1 all.
    """

    rate: Annotated[int, Field(ge=sound.LOWEST, le=sound.HIGHEST)] = 16_000
    seconds: Annotated[float, Field(ge=0.05, le=600)] = 1.0
    mels: Annotated[int, Field(ge=8, le=256)] = 64
    window: Annotated[float, Field(ge=0.005, le=0.2)] = 0.025
    hop: Annotated[float, Field(ge=0.001, le=0.2)] = 0.010
    low: Annotated[float, Field(ge=0)] = 20.0
    high: Annotated[float, Field(ge=0)] = 0.0
    mean: tuple[float, ...] = (10.0,)
    std: tuple[float, ...] = (5.0,)
    form: Literal["mel", "wave"] = "mel"
    level: bool = False
    centre: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, self.mels) or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(f"mean and std need one number or {self.mels}, std above 0")
        if self.frames < 1:
            raise ValueError("seconds are fewer than a window")
        bank(self.mel)

    @property
    def samples(self) -> int:
        """Number of samples of a clip."""
        return round(self.rate * self.seconds)

    @property
    def mel(self) -> Mel:
        """The spectrum."""
        window, hop = round(self.rate * self.window), max(1, round(self.rate * self.hop))
        return Mel(self.rate, window, hop, self.mels, self.low, self.high or self.rate / 2)

    @property
    def frames(self) -> int:
        """Number of frames of a clip's spectrum."""
        return self.mel.num_frames(self.samples)

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return 1

    @property
    def shape(self) -> tuple[int]:
        """Of a clip."""
        return (self.samples,)

    @property
    def dtype(self) -> type[np.int16]:
        """Of a clip."""
        return np.int16

    def as_dict(self) -> dict[str, Any]:
        """As it stands in model.json."""
        return asdict(self)


def preprocess_from(values: Mapping[str, Any], path: Path) -> AudioPreprocess:
    """The AudioPreprocess in a model.json at `path`.

    Raises:
        ModelError: it is missing or not valid.
    """
    return prepared_from(AudioPreprocess, values, path)


def read(source: Any, preprocess: AudioPreprocess) -> Samples:
    """Samples [n] at the rate of `preprocess`, from a path, a file's bytes, a member of an archive, or an array.

    Args:
        source: an array is taken as samples at that rate: int16 or float of -1..1, [n] or [n, channels].
        preprocess: what is to become of it.

    Raises:
        DataError: the file cannot be used, or the array holds what is not a number.
        UsageError: it is none of these.
    """
    if isinstance(source, str | bytes | Path | Member | Part):
        return sound.read(source, preprocess.rate)
    kind = source.dtype.kind if isinstance(source, np.ndarray) and source.ndim in (1, 2) and source.size else ""
    if kind not in ("i", "f") or (kind == "i" and source.dtype != np.int16):
        fix = "give a path, a file's bytes, or an array [n] or [n, channels] of int16 or of floats of -1..1"
        raise UsageError(f"a {type(source).__name__} is not a sound", fix=fix)
    samples = source.astype(np.float32) / np.float32(32768 if kind == "i" else 1)
    if not np.isfinite(samples).all():
        raise DataError("an array holds samples that are not numbers", fix="make them finite")
    return np.asarray(samples if samples.ndim == 1 else samples.mean(1, dtype=np.float32))


def to_integers(samples: NDArray[np.floating]) -> Clip:
    """Samples of -1..1 as 16-bit integers; what is beyond is clipped."""
    return np.asarray(np.rint(np.clip(samples * np.float32(32768), -32768, 32767)), np.int16)


def to_floats(clips: Clip) -> Samples:
    """16-bit integers as samples of -1..1: what a network with the spectrum inside takes."""
    return clips.astype(np.float32) / np.float32(32768)


def clip(samples: Samples, preprocess: AudioPreprocess) -> Clip:
    """The middle of a recording, or the recording in the middle of silence [samples]."""
    n, length = len(samples), preprocess.samples
    start = (n - length) // 2
    if start >= 0:
        return to_integers(samples[start : start + length])
    out = np.zeros(length, np.int16)
    out[(length - n) // 2 :][:n] = to_integers(samples)
    return out


def windows(samples: Samples, preprocess: AudioPreprocess) -> Clip:
    """All of a recording, in clips that overlap by half or more and reach from its start to its end [W, samples].

    No more than `MOST_WINDOWS`, evenly apart: of very long recordings they overlap less. One clip, as `clip` makes it,
    where the recording is no longer than that.
    """
    n, length = len(samples), preprocess.samples
    if n <= length:
        return clip(samples, preprocess)[None]
    count = min(MOST_WINDOWS, 1 + -(-2 * (n - length) // length))
    starts = np.rint(np.linspace(0, n - length, count)).astype(int)
    return np.stack([to_integers(samples[start : start + length]) for start in starts])


def log_mel(clips: Clip, preprocess: AudioPreprocess) -> NDArray[np.float32]:
    """Clips [N, samples] to log-mel spectra [N, 1, mels, frames], before any normalisation."""
    return np.ascontiguousarray(fbank(to_floats(clips), preprocess.mel).transpose(0, 2, 1))[:, None]


def normalise(clips: Clip, preprocess: AudioPreprocess) -> NDArray[np.float32]:
    """Clips [N, samples] to the float32 input of a network: [N, 1, mels, frames] of (log-mel - mean) / std.

    Or the samples themselves [N, 1, samples], where the network takes these.
    """
    if preprocess.form == "wave":
        return to_floats(clips)[:, None]
    mean, std = (np.array(each, np.float32)[:, None] for each in (preprocess.mean, preprocess.std))
    return np.asarray((centred(log_mel(clips, preprocess), preprocess) - mean) / std)


def centred(spectra: NDArray[np.float32], preprocess: AudioPreprocess) -> NDArray[np.float32]:
    """Log-mel spectra [N, 1, mels, frames] without the mean over the loud frames, if that is asked for.

    The mean over all bands, and of what each band has beside it a share, `centre`. Loud are frames whose loudest band
    is at most `QUIET_FRAME` under the loudest of the clip: so neither the silence around a short recording counts, nor
    the pauses in it. What lies further than that under a band's mean counts as that, so that silence is not another
    thing than a little noise.
    """
    if not (preprocess.level or preprocess.centre):
        return spectra
    loudest = spectra.max(2, keepdims=True)
    loud = (loudest >= loudest.max(3, keepdims=True) - np.float32(QUIET_FRAME)).astype(np.float32)
    mean = (spectra * loud).sum(3, keepdims=True) / loud.sum(3, keepdims=True)
    level = mean.mean(2, keepdims=True)
    taken = level + np.float32(preprocess.centre) * (mean - level)
    return np.asarray(np.maximum(spectra, mean - np.float32(QUIET_FRAME)) - taken)


def thumbnail(source: Any, width: int = 192, height: int = 96) -> bytes:
    """A JPEG of a recording: its wave above, its log-mel spectrum below, the whole of it.

    Raises:
        DataError: the file cannot be used.
    """
    preprocess = AudioPreprocess()
    samples = read(source, preprocess)
    lacking = preprocess.mel.window - len(samples)
    spectrum = fbank(np.pad(samples, (0, max(0, lacking))), preprocess.mel).T[::-1]
    low, high = spectrum.min(), spectrum.max()
    grey = np.rint((spectrum - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    upper = height // 3
    page = Image.new("L", (width, height))
    page.paste(Image.fromarray(_wave(samples, width, upper)), (0, 0))
    page.paste(Image.fromarray(grey).resize((width, height - upper)), (0, upper))
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _wave(samples: Samples, width: int, height: int) -> NDArray[np.uint8]:
    """Black from the lowest to the highest sample of each column, on white [height, width]; the loudest fills it."""
    starts = np.linspace(0, len(samples), width, endpoint=False).astype(int)
    scale = height / 2 / max(float(np.abs(samples).max()), 1e-6)
    top, bottom = (height / 2 - each.reduceat(samples, starts) * scale for each in (np.maximum, np.minimum))
    rows = np.arange(height)[:, None]
    return np.where((rows >= top - 1) & (rows <= bottom), 0, 255).astype(np.uint8)


def scan(source: Path, *, follow_links: bool = False) -> Dataset:
    """Read class folders, an archive of them, or a CSV of path,label[,start,end][,split][,group].

    With start and end, in seconds, a line is a part of a file, and is named as `sound.part_name` says.

    Args:
        source: folder, archive or .csv file.
        follow_links: as in `dataset.scan`.

    Raises:
        DataError: there is nothing to learn from, or a line is wrong.
    """
    if source.is_file() and source.suffix.lower() == ".csv":
        several, lines = _lines(source)
        if lines:
            refuse_gaps(lines, source)
            return replace(dataset_of(source.parent, [row for _, row in lines], several=several), noun=NOUN)
    return dataset.scan(source, EXTENSIONS, follow_links=follow_links, noun=NOUN)


def _lines(path: Path) -> tuple[bool, list[tuple[int, Row]]]:
    """Whether a line may have several labels, and the lines of a CSV with start and end; none where it has no such."""
    try:
        with read_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = set(reader.fieldnames or ())
            if not names & set(TIMES):
                return False, []
            if "path" not in names or not names & {"label", "labels"}:
                raise DataError("line 1 has no column path, or none of label and labels", path=path, fix=START)
            lines = [(reader.line_num, _part(values, path, reader.line_num)) for values in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV in UTF-8: {error}", path=path, fix="save it as CSV, UTF-8") from error
    if not lines:
        raise DataError("has no lines below its header", path=path, fix="add some")
    seen: dict[str, int] = {}
    for line, row in lines:
        if (first := seen.setdefault(row.path, line)) != line:
            what = f"line {line} names {printable(row.path)} again, after line {first}"
            raise DataError(what, path=path, fix="remove one of both")
    return "labels" in names, lines


def _part(values: Mapping[str, str | None], path: Path, line: int) -> Row:
    def value(name: str) -> str:
        return (values.get(name) or "").strip()

    name = value("path")
    if not name or not os.path.isfile(path.parent / name):
        what = f"line {line}: there is no file {printable(name)!r}"
        raise DataError(what, path=path, fix="paths start at the CSV's folder")
    labels = (value("label"),) if value("label") else split_labels(value("labels"))
    if not labels and "labels" not in values:
        raise DataError(f"line {line} has no label", path=path, fix="fill it in or remove the line")
    try:
        start, end = float(value("start") or 0), float(value("end")) if value("end") else None
    except ValueError as error:
        raise DataError(f"line {line}: {error}", path=path, fix="give start and end in seconds") from error
    if not 0 <= start < (float("inf") if end is None else end) or end == float("inf"):
        what = f"line {line} starts at {start:g} and ends at {end}"
        raise DataError(what, path=path, fix="give 0 <= start < end, in seconds")
    whole = not start and end is None
    return Row(name if whole else sound.part_name(name, start, end), labels, value("split"), value("group"))
