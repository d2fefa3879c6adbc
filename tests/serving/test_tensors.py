"""Requests of the Open Inference Protocol: what is refused names its field."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from resnetkit.serving.limits import Limits
from resnetkit.serving.refusal import Refused
from resnetkit.serving.tensors import tensors_of

LIMITS = Limits(max_files=4, max_pixels=100)
GOOD = {"name": "pixels", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4]}


def body(**changes: Any) -> bytes:
    return json.dumps({"inputs": [{**GOOD, **changes}]}).encode()


def test_pixels_flat_and_nested() -> None:
    flat = tensors_of("", body(), LIMITS)
    nested = tensors_of("", body(data=[[[[1], [2]], [[3], [4]]]]), LIMITS)
    for found in (flat, nested):
        assert len(found.sources) == 1 and found.outputs is None and found.id is None and found.binary == frozenset()
        assert np.array_equal(found.sources[0], np.array([[[1], [2]], [[3], [4]]], np.uint8))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "not JSON|not an object"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "not JSON"),
        (b"[1]", "the body is not an object"),
        (b'{"inputs": NaN}', "NaN"),
        (b'{"inputs": [Infinity]}', "Infinity"),
        (b'{"inputs": [1e400]}', "too large"),
        (b'{"inputs": [], "inputs": []}', "twice"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "not JSON|not an array"),
        (b"{}", "inputs is not an array"),
        (b'{"inputs": []}', "give one of"),
        (b'{"inputs": [1]}', r"inputs\[0\] is not an object"),
        (json.dumps({"inputs": [GOOD, GOOD]}).encode(), "not 2"),
        (json.dumps({"id": 5, "inputs": [GOOD]}).encode(), "^id"),
        (json.dumps({"inputs": [GOOD], "outputs": 3}).encode(), "outputs is not an array"),
        (json.dumps({"inputs": [GOOD], "outputs": [{"name": 3}]}).encode(), r"outputs\[\].name"),
        (json.dumps({"inputs": [GOOD], "parameters": 3}).encode(), "parameters is not an object"),
        (body(name="image"), "name"),
        (body(datatype="FP32"), "datatype"),
        (body(shape=[1, 2, 2]), "is of 4 numbers|channels|numbers"),
        (body(shape=[1, 2, 2, -1]), "positive"),
        (body(shape=[1, 2, 2, 1.0]), "positive"),
        (body(shape=[True, 2, 2, 1]), "positive"),
        (body(shape=[]), "positive"),
        (body(shape=[1, 1, 1, 1, 4]), "positive"),
        (body(shape=[4]), "is \\[N, H, W\\]"),
        (body(shape=[1, 2, 2, 2]), "is of 8 numbers"),
        (body(shape=[1, 1, 1, 2**31 - 1]), "numbers"),
        (body(shape=[1, 2, 2, 2**40]), "positive"),
        (body(data=[1, 2, 3]), "there are 3"),
        (body(data=[1, 2, 3, 256]), "0..255"),
        (body(data=[1, 2, 3, -1]), "0..255"),
        (body(data=[1, 2, 3, 1.5]), "0..255"),
        (body(data=[1, 2, 3, None]), "0..255"),
        (body(data=[1, 2, 3, True]), "0..255"),
        (body(data=[[1, 2], 3]), "form of its shape"),
        (body(data="1234"), "data is not an array"),
        (body(parameters={"binary_data_size": 4}), "either data or"),
        (body(name="file", datatype="BYTES", shape=[1], data=["http://127.0.0.1/"]), "not fetched"),
        (body(name="file", datatype="BYTES", shape=[1], data=[5]), "base64"),
        (body(name="file", datatype="BYTES", shape=[2], data=["AAAA"]), "of 2 files"),
    ],
)
def test_what_is_refused(content: bytes, text: str) -> None:
    """I11, I13."""
    if content == body(shape=[1, 2, 2]):
        assert tensors_of("", content, LIMITS).sources[0].shape == (2, 2)
        return
    with pytest.raises(Refused, match=text) as caught:
        tensors_of("", content, LIMITS)
    assert caught.value.status == 400


@pytest.mark.parametrize("shape", [[5, 1, 1, 1], [1, 11, 10, 1], [1, 2**20, 2**20, 3]])
def test_too_much(shape: list[int]) -> None:
    with pytest.raises(Refused) as caught:
        tensors_of("", body(shape=shape), LIMITS)
    assert caught.value.status == 413


def test_json_has_a_limit_of_its_own() -> None:
    with pytest.raises(Refused, match="JSON of"):
        tensors_of("", body(), Limits(max_json=10))


def packed(given: dict[str, Any], tail: bytes, length: str = "") -> tuple[str, bytes]:
    text = json.dumps({"inputs": [given]}).encode()
    return length or str(len(text)), text + tail


BINARY = {name: value for name, value in GOOD.items() if name != "data"}


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (packed(BINARY, b"1234"), "either data or"),
        (packed({**BINARY, "parameters": {"binary_data_size": 5}}, b"1234"), "more than what follows"),
        (packed({**BINARY, "parameters": {"binary_data_size": 3}}, b"1234"), "numbers|belong to no input"),
        (packed({**BINARY, "parameters": {"binary_data_size": -1}}, b"1234"), "not a number of bytes"),
        (packed({**BINARY, "parameters": {"binary_data_size": "4"}}, b"1234"), "not a number of bytes"),
        (packed({**BINARY, "parameters": {"binary_data_size": 4}}, b"12345"), "1 bytes follow"),
        (packed(BINARY, b"", "9999999"), "Inference-Header-Content-Length"),
        (packed(BINARY, b"", "-1"), "Inference-Header-Content-Length"),
        (packed(BINARY, b"", "1e3"), "Inference-Header-Content-Length"),
        (packed(BINARY, b"", "٣"), "Inference-Header-Content-Length"),
        (
            packed(
                {"name": "file", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}, b"\xff" * 6
            ),
            "longer than what follows",
        ),
    ],
)
def test_binary_tensors_that_are_not_as_they_say(sent: tuple[str, bytes], text: str) -> None:
    with pytest.raises(Refused, match=text):
        tensors_of(*sent, LIMITS)


def test_an_empty_file() -> None:
    given = {"name": "file", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4}}
    with pytest.raises(Refused) as caught:
        tensors_of(*packed(given, bytes(4)), LIMITS)
    assert caught.value.status == 422


def test_what_is_asked_for() -> None:
    request = {
        "inputs": [GOOD],
        "outputs": [{"name": "label"}, {"name": "scores", "parameters": {"binary_data": True}}],
    }
    found = tensors_of("", json.dumps(request).encode(), LIMITS)
    assert found.outputs == ("label", "scores") and found.binary == {"scores"}
