"""A worker: what is poisoned fails alone, what nobody waits for is dropped, and the company changes no answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnetkit.serving import worker
from resnetkit.serving.frames import frames, packed
from resnetkit.serving.limits import Limits
from resnetkit.serving.opened import Opening
from servers import encoded

HEAD = {"kind": "predict", "type": "image/png", "top": 3}


class Front:
    """What a server is to a worker."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(60)
        self.heard = frames(connection)

    def send(self, number: int, body: bytes, **more: Any) -> None:
        head = {**HEAD, "number": number, "deadline": time.monotonic() + 60, **more}
        self.connection.sendall(b"".join(packed(head, body)))

    def answers(self, count: int) -> dict[int, tuple[dict[str, Any], bytes]]:
        found = (next(self.heard) for _ in range(count))
        return {head["number"]: (head, body) for head, body in found}


@contextmanager
def attended(path: Path, batch: int = 1, **limits: Any) -> Iterator[Front]:
    """A worker in a thread, which puts that many requests together."""
    ours, its = socket.socketpair()
    opening = Opening("m", str(path), "torch", "cpu", False, Limits(**{"batch": batch, "batch_seconds": 0.2, **limits}))
    thread = threading.Thread(target=worker.attend, args=(its, opening), daemon=True)
    thread.start()
    front = Front(ours)
    try:
        assert next(front.heard)[0]["kind"] == "opened"
        assert next(front.heard)[0]["kind"] == "ready"
        yield front
    finally:
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        ours.close()
        its.close()


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches pay, whatever this machine says."""
    monkeypatch.setattr("resnetkit.serving.opened.PAYS", 1e9)


def files_of(trained: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((trained.parent.parent / "photos").rglob("*.png"))]


def test_alone_or_together_the_answer_is_the_same(trained: Path, together: None) -> None:
    """I35."""
    files = files_of(trained)[:24]
    found = []
    for batch in (1, 8):
        with attended(trained, batch) as front:
            for number, content in enumerate(files):
                front.send(number, content)
            answers = front.answers(len(files))
        found.append([json.loads(answers[number][1])["answers"][0] for number in range(len(files))])
    for one, other in zip(*found, strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_one_poisoned_request_fails_alone(trained: Path, together: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """I19: in a batch that the network cannot do, and in one with a file that cannot be read."""
    from resnetkit.runtime.backends import TorchBackend

    whole = TorchBackend.outputs

    def fragile(self: TorchBackend, batch: Any) -> Any:
        if (batch == 0).all(axis=(1, 2, 3)).any():
            raise ZeroDivisionError("an engine that fails")
        return whole(self, batch)

    files = files_of(trained)[:6]
    with attended(trained, 8) as front:
        monkeypatch.setattr(TorchBackend, "outputs", fragile)
        black = encoded(Image.new("RGB", (40, 40)))
        for number, content in enumerate([*files[:3], black, *files[3:], files[0][:100]]):
            front.send(number, content)
        answers = front.answers(8)
    assert answers[3][0]["status"] == 500 and answers[7][0]["status"] == 422
    assert all(answers[number][0]["status"] == 200 for number in range(8) if number not in (3, 7))


def test_a_deadline_that_has_passed_is_not_worked_for(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I17."""
    with attended(trained) as front:
        monkeypatch.setattr("resnetkit.runtime.model.Model.predictions", lambda *_: pytest.fail("it was asked"))
        front.send(1, files_of(trained)[0], deadline=time.monotonic() - 1)
        assert front.answers(1)[1][0]["status"] == 504


def test_an_image_bomb(trained: Path) -> None:
    """I5: refused by its header, before a pixel is decoded."""
    bomb = encoded(Image.new("L", (9000, 9000)))
    assert len(bomb) < 200_000
    with attended(trained) as front:
        front.send(1, bomb)
        head = front.answers(1)[1][0]
        assert head["status"] == 413 and "9000 x 9000" in head["error"]
        front.send(2, encoded(Image.new("1", (12_000, 12_000))))
        assert front.answers(1)[2][0]["status"] == 413


def test_arrays_that_are_no_image(trained: Path) -> None:
    request = {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 2, 2, 7], "data": [0] * 28}]}
    with attended(trained) as front:
        front.send(1, json.dumps(request).encode(), kind="infer", json_length="")
        head = front.answers(1)[1][0]
    assert head["status"] == 400 and "not an image" in head["error"]


def test_a_coverage_that_nobody_can_promise(trained: Path) -> None:
    with attended(trained) as front:
        front.send(1, files_of(trained)[0], coverage=0.999999)
        assert front.answers(1)[1][0]["status"] == 400


def test_a_model_that_is_damaged(tmp_path: Path) -> None:
    """I23."""
    ours, its = socket.socketpair()
    with ours, its:
        ours.settimeout(30)
        worker.attend(its, Opening("m", str(tmp_path / "none"), "torch", "cpu", False, Limits()))
        head, _ = next(frames(ours))
    assert head["kind"] == "refused" and head["exit_code"] == 5


def test_a_model_whose_answers_are_not_finite(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I24, I36: it never becomes ready."""
    monkeypatch.setattr(
        "resnetkit.runtime.backends.TorchBackend.outputs",
        lambda self, batch: (np.full((len(batch), 3), np.nan, np.float32), np.zeros((len(batch), 512), np.float32)),
    )
    ours, its = socket.socketpair()
    with ours, its:
        ours.settimeout(30)
        worker.attend(its, Opening("m", str(trained), "torch", "cpu", False, Limits()))
        head, _ = next(frames(ours))
    assert head["kind"] == "refused" and "not finite" in head["error"]
