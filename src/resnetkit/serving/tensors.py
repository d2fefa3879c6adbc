"""A request of the Open Inference Protocol to what a model reads: tensors in JSON, or as bytes behind it.

Nothing here is a path or an address, whatever a client writes.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.serving.limits import Limits
from resnetkit.serving.refusal import Refused, bad, too_large

FILE, PIXELS = "file", "pixels"  # inputs: encoded files, or arrays
MAX_TEXT = 256  # characters of a name or an id


@dataclass(frozen=True)
class Tensors:
    """A request of the Open Inference Protocol.

    Attributes:
        sources: what the model is to read, one for each row.
        id: to be given back; None where there was none.
        outputs: names that are asked for; None: all.
        binary: names of those wanted as bytes behind the JSON; None: all.
    """

    sources: list[Any]
    id: str | None
    outputs: tuple[str, ...] | None
    binary: frozenset[str] | None


def tensors_of(header_length: str, body: bytes, limits: Limits) -> Tensors:
    """A request of the Open Inference Protocol, with tensors in JSON or as bytes behind it.

    Args:
        header_length: of Inference-Header-Content-Length, "" where all of the body is JSON.
        body: as it was sent.
        limits: of the server.

    Raises:
        Refused: it is not as it should be; the text names the field.
    """
    length = _header_length(header_length, len(body))
    if length > limits.max_json:
        raise too_large(f"JSON of {length:,} bytes is over {limits.max_json:,}")
    request = _object(body[:length])
    inputs = _list(request, "inputs")
    if len(inputs) != 1:
        raise bad(f"inputs: give one of {FILE!r} and {PIXELS!r}, not {len(inputs)}")
    sources, used = _rows(_mapping(inputs[0], "inputs[0]"), memoryview(body)[length:], limits)
    if used != len(body) - length:
        raise bad(f"inputs[0]: {len(body) - length - used:,} bytes follow that belong to no input")
    outputs, binary = _outputs(request)
    return Tensors(sources, _id(request), outputs, binary)


def _header_length(text: str, total: int) -> int:
    if not text:
        return total
    if not text.isascii() or not text.isdecimal() or len(text) > 12 or int(text) > total:
        raise bad("Inference-Header-Content-Length is not the length of the JSON")
    return int(text)


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(
            text.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise bad("the body is not JSON") from error
    return _mapping(found, "the body")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise bad("a name is there twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise bad("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise bad("a number is too large")
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"{name} is not an object")
    return value


def _list(values: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = values.get(name)
    if not isinstance(found, list):
        raise bad(f"{name} is not an array")
    return found


def _id(request: Mapping[str, Any]) -> str | None:
    found = request.get("id")
    if found is not None and (not isinstance(found, str) or len(found) > MAX_TEXT):
        raise bad(f"id is not a text of at most {MAX_TEXT} characters")
    return found


def _shape(given: Mapping[str, Any], limits: Limits) -> tuple[int, ...]:
    shape = _list(given, "shape")
    if not 1 <= len(shape) <= 4 or any(type(each) is not int or not 0 < each < 2**31 for each in shape):
        raise bad("inputs[0].shape is not of one to four positive whole numbers")
    if shape[0] > limits.max_files:
        raise too_large(f"inputs[0].shape: more than {limits.max_files:,} rows")
    return tuple(shape)


def _rows(given: Mapping[str, Any], tail: memoryview, limits: Limits) -> tuple[list[Any], int]:
    """What the model is to read for each row, and how many bytes behind the JSON that took."""
    name, kind = given.get("name"), given.get("datatype")
    if name not in (FILE, PIXELS):
        raise bad(f"inputs[0].name is neither {FILE!r} nor {PIXELS!r}")
    if kind != {FILE: "BYTES", PIXELS: "UINT8"}[name]:
        raise bad(f"inputs[0].datatype of {name!r} is {'BYTES' if name == FILE else 'UINT8'}")
    shape, size = _shape(given, limits), _binary_size(given)
    if (size is None) == ("data" not in given):
        raise bad("inputs[0] has either data or parameters.binary_data_size")
    if size is not None and size > len(tail):
        raise bad("inputs[0].parameters.binary_data_size is more than what follows the JSON")
    if name == FILE:
        files = _listed_files(given) if size is None else _packed_files(tail[:size])
        if len(files) != math.prod(shape):
            raise bad(f"inputs[0].shape is of {math.prod(shape):,} files, and there are {len(files):,}")
        return list(files), size or 0
    return _arrays(given, shape, None if size is None else tail[:size], limits), size or 0


def _binary_size(given: Mapping[str, Any]) -> int | None:
    size = _mapping(given.get("parameters", {}), "inputs[0].parameters").get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise bad("inputs[0].parameters.binary_data_size is not a number of bytes")
    return size


def _listed_files(given: Mapping[str, Any]) -> list[bytes]:
    """Files as base64 in JSON."""
    found = []
    for text in _list(given, "data"):
        if not isinstance(text, str):
            raise bad("inputs[0].data is not of texts in base64")
        try:
            found.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            raise bad("inputs[0].data is not base64 (an address is not fetched: send the file)") from error
    return _none_empty(found)


def _packed_files(tail: memoryview) -> list[bytes]:
    """Files one after another, each with its length before it in four bytes, the lowest first."""
    found, at = [], 0
    while at < len(tail):
        length = int.from_bytes(tail[at : at + 4], "little")
        if at + 4 + length > len(tail):
            raise bad("inputs[0]: a file is longer than what follows")
        found.append(bytes(tail[at + 4 : at + 4 + length]))
        at += 4 + length
    return _none_empty(found)


def _none_empty(files: list[bytes]) -> list[bytes]:
    if not all(files):
        raise Refused(422, "empty", "inputs[0]: a file is empty")
    return files


def _arrays(
    given: Mapping[str, Any], shape: tuple[int, ...], tail: memoryview | None, limits: Limits
) -> list[NDArray[np.uint8]]:
    """Arrays [H, W] or [H, W, C] of a tensor [N, H, W] or [N, H, W, C]."""
    if len(shape) < 3:
        raise bad(f"inputs[0].shape of {PIXELS!r} is [N, H, W] or [N, H, W, C]")
    if shape[1] * shape[2] > limits.max_pixels:
        raise too_large(f"inputs[0].shape: an image is over {limits.max_pixels:,} pixels")
    if tail is None:
        values = np.array(_flat(_list(given, "data"), math.prod(shape)), np.uint8)
    else:
        values = np.frombuffer(tail, np.uint8)
    if values.size != math.prod(shape):
        raise bad(f"inputs[0].shape is of {math.prod(shape):,} numbers, and there are {values.size:,}")
    return list(values.reshape(shape))


def _flat(data: Sequence[Any], most: int) -> list[int]:
    """The numbers of an array, which may be nested as its shape is."""
    levels: list[Any] = list(data)
    while levels and isinstance(levels[0], list):
        if not all(isinstance(each, list) for each in levels) or sum(map(len, levels)) > most:
            raise bad("inputs[0].data is not of the form of its shape")
        levels = [value for each in levels for value in each]
    if not all(type(value) is int and 0 <= value < 256 for value in levels):
        raise bad("inputs[0].data is not of whole numbers 0..255")
    return levels


def _outputs(request: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, frozenset[str] | None]:
    """Names of the outputs asked for, and of those wanted as bytes behind the JSON."""
    given = _mapping(request.get("parameters", {}), "parameters")
    everything = given.get("binary_data_output") is True
    if "outputs" not in request:
        return None, None if everything else frozenset()
    names, binary = [], set()
    for each in _list(request, "outputs"):
        one = _mapping(each, "outputs[]")
        name = one.get("name")
        if not isinstance(name, str) or len(name) > MAX_TEXT:
            raise bad("outputs[].name is not a text")
        names.append(name)
        if _mapping(one.get("parameters", {}), "outputs[].parameters").get("binary_data", everything) is True:
            binary.add(name)
    return tuple(names), frozenset(binary)
