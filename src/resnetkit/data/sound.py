"""Sound files: opened by their first bytes, decoded block by block under ceilings of our own, mixed down, resampled.

Several channels become one by their mean, sample by sample (a voice on one of two channels is then half as loud; a
log-mel spectrum is shifted by 1.4, as by a speaker who stands further away). Rates of 4 to 192 kHz are brought to the
one asked for with soxr's HQ filter, whose delay is taken out.

A part of a file has the name that the W3C gives it (Media Fragments): `talk.wav#t=1.5,4` is 1.5 to 4 seconds of it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.formats import REPLACE, Source, name_of, opened, reason
from resnetkit.data.sources import FRAGMENT
from resnetkit.data.sources import part_name as part_name
from resnetkit.errors import DataError, ResourceError

Samples = NDArray[np.float32]
EXTENSIONS = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3")
LOWEST, HIGHEST = 4_000, 192_000  # Hz
MAX_CHANNELS = 8
MAX_SECONDS = 3_600.0
MAX_BYTES = 2**32
BLOCK = 2**16  # samples of a channel that are decoded at a time
UNKNOWN = 2**62  # libsndfile says 2**63 - 1 where a stream does not know its length
CODINGS = (  # what libsndfile may decode; ADPCM and the like stay closed
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
)
SHORT_DATA = re.compile(r"^\s*data\s*:\s*(\d+)\s*\(should be (\d+)\)", re.MULTILINE)
STREAMED = {0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0xFFFFF000}  # sizes of who writes to a pipe


@dataclass(frozen=True)
class Stored:
    """What a file says of itself: samples a second, channels, and seconds (infinite where it does not know)."""

    rate: int
    channels: int
    seconds: float


def whole_and_part(source: Source) -> tuple[Source, float, float | None]:
    """The file that a source names, and where it is to start and to end, in seconds."""
    if isinstance(source, bytes) or hasattr(source, "archive"):
        return source, 0.0, None
    name = os.fspath(source)
    found = FRAGMENT.fullmatch(name)
    if found is None or os.path.exists(name):  # a file may be called so
        return source, 0.0, None
    return found[1], float(found[2]), None if found[3] is None else float(found[3])


def stored(source: Source) -> Stored:
    """What a file's header says.

    Raises:
        DataError, ResourceError: as `read`.
    """
    whole, _, _ = whole_and_part(source)
    with _opened(whole, name_of(source)) as file:
        seconds = file.frames / file.samplerate if file.frames < UNKNOWN else float("inf")
        return Stored(file.samplerate, file.channels, seconds)


def read(source: Source, rate: int, *, max_seconds: float = MAX_SECONDS) -> Samples:
    """A sound file, or a part of it, as one channel at a rate.

    Args:
        source: a path, a part of one (see `part_name`), a file's bytes, or a member of an archive.
        rate: samples a second of the result.
        max_seconds: length that is refused when it is exceeded, by what the file says or by what is in it.

    Returns:
        Samples [n], n > 0; -1..1, and beyond where a file of floats goes beyond.

    Raises:
        DataError: the file is no sound, damaged, cut short, empty, or over a ceiling.
        ResourceError: the package that reads sounds is missing.
    """
    name = name_of(source)
    whole, start, end = whole_and_part(source)
    with _opened(whole, name) as file:
        blocks = list(_resampled(_mono(file, name, (start, end), max_seconds), file.samplerate, rate))
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(samples):
        raise DataError("holds no samples", path=name, fix=REPLACE)
    return samples


@contextlib.contextmanager
def _opened(source: Source, name: str) -> Iterator[Any]:
    """The file under libsndfile; what it raises, inside too, as a DataError."""
    package = _package("soundfile")
    try:
        with opened(source) as raw:
            _refuse_unlike(raw, name)
            with package.SoundFile(raw) as file:
                _refuse_odd(file, name)
                yield file
    except (package.LibsndfileError, OSError) as error:
        raise DataError(f"cannot be read: {_why(error)}", path=name, fix=REPLACE) from error


def _why(error: Exception) -> str:
    text: str = getattr(error, "error_string", "")
    return text.rstrip(".").lower() or reason(error)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: the library that soundfile wraps is missing
        raise ResourceError(f"sounds need {name}", fix='pip install "resnetkit[audio]"') from error


def _refuse_unlike(raw: IO[bytes], name: str) -> None:
    """By the first bytes: libsndfile reads many old formats, whose readers have had holes."""
    head = raw.read(16)
    size = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    if not size:
        raise DataError("is empty", path=name, fix=REPLACE)
    if size > MAX_BYTES:
        raise DataError(f"is of {size:,} bytes, over {MAX_BYTES:,}", path=name, fix="cut it into parts")
    riff = head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE"
    mpeg = head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] >= 0xE0)
    if not (riff or mpeg or head[:4] in (b"fLaC", b"OggS")):
        raise DataError("is not WAV, FLAC, OGG or MP3", path=name, fix="save it as one of these, or remove it")


def _refuse_odd(file: Any, name: str) -> None:
    if file.subtype not in CODINGS:
        raise DataError(f"is coded as {file.subtype}", path=name, fix="save it as 16-bit WAV or FLAC")
    if not LOWEST <= file.samplerate <= HIGHEST:
        what = f"has {file.samplerate:,} samples a second, not {LOWEST:,} to {HIGHEST:,}"
        raise DataError(what, path=name, fix="resample it, or correct its header")
    if not 1 <= file.channels <= MAX_CHANNELS:
        what = f"has {file.channels} channels, over {MAX_CHANNELS}"
        raise DataError(what, path=name, fix="export the channels that matter")
    short = SHORT_DATA.search(file.extra_info)
    if short and int(short[1]) not in STREAMED and int(short[1]) > int(short[2]):
        what = f"is cut short: {int(short[2]):,} of {int(short[1]):,} bytes of sound"
        raise DataError(what, path=name, fix="copy it again from its source")


def _mono(file: Any, name: str, part: tuple[float, float | None], max_seconds: float) -> Iterator[Samples]:
    """Blocks of the mean of the channels."""
    start, end = (None if second is None else round(second * file.samplerate) for second in part)
    known = file.frames if file.frames < UNKNOWN else None
    stop = known if end is None else end
    if known is not None and max(start or 0, stop or 0) > known or (stop is not None and start and start >= stop):
        what = f"has {(known or 0) / file.samplerate:.3f} seconds, and {part[0]:g} to {part[1]} are asked for"
        raise DataError(what, path=name, fix="correct the times")
    most = round(max_seconds * file.samplerate)
    too_long = DataError(f"is longer than {max_seconds:,.0f} seconds", path=name, fix="cut it into parts")
    if stop is not None and stop - (start or 0) > most:
        raise too_long
    if start:
        file.seek(start)
    done = start or 0
    while stop is None or done < stop:
        block = file.read(BLOCK if stop is None else min(BLOCK, stop - done), dtype="float32", always_2d=True)
        if not len(block):
            break
        if not np.isfinite(block).all():
            raise DataError("holds samples that are not numbers", path=name, fix="export it again")
        done += len(block)
        if done - (start or 0) > most:
            raise too_long
        yield block.mean(1, dtype=np.float32)
    if stop is not None and done < stop and file.format != "MP3":  # an MP3 without a table of contents only estimates
        what = f"is cut short: {done:,} of {stop:,} samples"
        raise DataError(what, path=name, fix="copy it again from its source")


def _resampled(blocks: Iterator[Samples], have: int, rate: int) -> Iterator[Samples]:
    if have == rate:
        yield from blocks
        return
    stream = _package("soxr").ResampleStream(have, rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
