"""A worker: a process that has one model open, decodes what the server hands it, infers, and writes the answers.

The server never looks into a body. What crashes a decoder or an engine ends a worker, and the server starts another.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resnetkit.data.image import picture, stored_size
from resnetkit.errors import DataError, ResnetkitError, UsageError
from resnetkit.runtime.scenes import SceneModel
from resnetkit.serving.batches import Batches, Job
from resnetkit.serving.forms import JSON, sources_of
from resnetkit.serving.frames import frames, packed
from resnetkit.serving.log import JsonLines, log_bug
from resnetkit.serving.opened import Opened, Opening, open_model
from resnetkit.serving.refusal import Refused, bad, too_large
from resnetkit.serving.telling import columns_of, row_of, strict_json, told
from resnetkit.serving.tensors import Tensors, tensors_of
from resnetkit.tasks.boxes import SURE
from resnetkit.tasks.task import IMAGE

NICE = 5  # by which the server, which has to say at once that there is no room, goes before its workers
SWITCH = 0.001  # seconds after which a thread that infers goes on, between two layers, while another one decodes
LANES = 2  # groups at a time: one is decoded while the other is inferred
SIDE, DRAWN = 512, 1024  # pixels of an overlay's longer side, and of one with boxes or a mask
CLASSES, BOXES = 5, 100  # most in an answer, if nothing else is asked for
# What data/ says of a file that is none of its formats, and of one that is too large.
OTHER_KIND = re.compile(r"is (not an image|not WAV|HEIC|a video|a camera)")
OVER = re.compile(r"\b(over|longer than) [\d,]+( \w+)?$")


def run(connection: socket.socket, opening: Opening) -> None:
    """The life of a worker's process: it ends with the server, however that ends, and with nothing else."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)  # the server says when
    if hasattr(os, "nice"):
        os.nice(NICE)
    logging.getLogger("resnetkit").addHandler(JsonLines())
    sys.setswitchinterval(SWITCH)
    try:
        attend(connection, opening)
    finally:
        os._exit(0)  # without waiting for what an engine still computes


def attend(connection: socket.socket, opening: Opening) -> None:
    """Open the model, say so, and answer until the server has gone."""
    worker = Worker(connection)
    try:
        opened = open_model(opening)
        answers = opened.warm()
        worker.send({"kind": "opened", "info": opened.described(answers)})
        batches = Batches(opened.batch(), opening.limits.batch_seconds)
    except ResnetkitError as error:
        values = {"error": error.what, "path": error.path, "fix": error.fix, "exit_code": error.exit_code}
        worker.send({"kind": "refused", **values})
        return
    worker.send({"kind": "ready", "batch": batches.most, "pid": os.getpid()})
    lanes = [threading.Thread(target=Lane(worker, opened, batches).live, daemon=True) for _ in range(LANES)]
    for lane in lanes:
        lane.start()
    for head, body in frames(connection):
        if head["kind"] == "leave":
            batches.leave(head["number"])
        else:
            batches.put(_job(head, body))
    batches.close()


def _job(head: dict[str, Any], body: bytes) -> Job:
    asked = {name: head.get(name) for name in ("top", "coverage", "overlay", "label")}
    key = (head["kind"], *(asked.values() if head["kind"] == "predict" else ()))
    return Job(head["number"], head["kind"], key, head["deadline"], {**head, **asked}, body)


@dataclass(frozen=True)
class Worker:
    """The way back to the server, for several threads."""

    connection: socket.socket
    alone: threading.Lock = field(default_factory=threading.Lock)

    def send(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        """One frame; a server that has gone hears nothing."""
        with self.alone:
            try:
                for part in packed(head, body):
                    self.connection.sendall(part)
            except OSError:
                return


@dataclass(frozen=True)
class _Read:
    """A request whose body has been read into what the model takes."""

    job: Job
    sources: Sequence[Any]
    tensors: Tensors | None = None


@dataclass(frozen=True)
class Lane:
    """Answers one group of requests after another."""

    worker: Worker
    opened: Opened
    batches: Batches

    def live(self) -> None:
        """Until there is nothing more."""
        while jobs := self.batches.take():
            try:
                self._group(jobs)
            finally:
                self.batches.done(len(jobs))

    def _group(self, jobs: Sequence[Job]) -> None:
        read = []
        for job in jobs:
            if time.monotonic() > job.deadline:
                self._refuse(job, Refused(504, "deadline", "the deadline passed while the request waited"))
                continue
            try:
                read.append(self._read(job))
            except Exception as error:
                self._refuse(job, self._refusal(job, error))
        if read:
            self._answer(read)

    def _read(self, job: Job) -> _Read:
        """The sources of a request.

        Raises:
            Refused: it is not as it should be.
        """
        limits, header = self.opened.opening.limits, job.asked["type"]
        if job.kind == "infer":
            tensors = tensors_of(job.asked.get("json_length", ""), job.body, limits)
            self._refuse_large(tensors.sources)
            return _Read(job, tensors.sources, tensors)
        sources = sources_of(header, job.body, limits)
        self._refuse_large(sources)
        return _Read(job, sources)

    def _refuse_large(self, sources: Sequence[Any]) -> None:
        """Refuse images by their headers, before any pixel is decoded."""
        most = self.opened.opening.limits.max_pixels
        if self.opened.own.task.modality is not IMAGE:
            return
        for number, source in enumerate(sources, 1):
            size = stored_size(source) if isinstance(source, bytes) else None
            if size and size[0] * size[1] > most:
                raise too_large(f"file {number}: {size[0]} x {size[1]} is over {most:,} pixels")

    def _answer(self, read: Sequence[_Read]) -> None:
        """Answer a group; if the model fails on it, one by one, so that only the one that is to blame has no answer."""
        sources = [source for each in read for source in each.sources]
        try:
            answers = iter(self._predicted(read[0], sources))
        except Exception as error:
            if len(read) > 1:
                for each in read:
                    self._answer([each])
                return
            self._refuse(read[0].job, self._refusal(read[0].job, error))
            return
        for each in read:
            self._tell(each, [next(answers) for _ in each.sources])

    def _predicted(self, first: _Read, sources: Sequence[Any]) -> list[Any]:
        model, asked = self.opened.model, first.job.asked
        if isinstance(model, SceneModel):
            return [answer for _, answer in model.predictions(sources, asked["top"] or BOXES, asked["coverage"])]
        top = len(model.classes) if first.tensors else asked["top"] or CLASSES
        coverage = None if first.tensors else asked["coverage"]
        return [answer for _, answer in model.predictions(sources, top, coverage)]

    def _tell(self, read: _Read, answers: Sequence[Any]) -> None:
        """Send what came of a request."""
        failed = [answer for answer in answers if isinstance(answer, DataError)]
        try:
            if failed and (read.tensors or len(failed) == len(answers)):
                raise _refusal_of(failed[0], answers.index(failed[0]) + 1)
            if read.tensors:
                columns = columns_of(answers, self.opened.model.classes)
                headers, body = told(columns, read.tensors, self.opened.opening.name)
            else:
                headers, body = {"content-type": JSON}, self._told(read, answers)
        except Exception as error:
            self._refuse(read.job, self._refusal(read.job, error))
            return
        counts = {"items": len(answers), "failed": len(failed), "digest": _digest(read.job)}
        self.worker.send(
            {"kind": "answer", "number": read.job.number, "status": 200, "headers": headers, **counts}, body
        )

    def _told(self, read: _Read, answers: Sequence[Any]) -> bytes:
        """The body of POST /predict."""
        rows: list[dict[str, Any]] = []
        for number, answer in enumerate(answers, 1):
            if isinstance(answer, DataError):
                refusal = _refusal_of(answer, number)
                rows.append({"error": refusal.what, "code": refusal.code})
            else:
                rows.append(row_of(answer))
        if read.job.asked["overlay"]:
            pictures = self._drawn(read, answers) if self.opened.draws else self._overlays(read)
            for row, url in zip(rows, pictures, strict=True):
                row |= {"overlay": url} if url else {}
        return strict_json({"model": self.opened.opening.name, "answers": rows})

    def _drawn(self, read: _Read, answers: Sequence[Any]) -> list[str]:
        """A picture for each file with its boxes or its mask over it, as a data: URL; "" where there is none."""
        found = []
        for source, answer in zip(read.sources, answers, strict=True):
            if isinstance(answer, DataError) or not isinstance(source, bytes):
                found.append("")
            else:
                found.append(_url(answer.drawn(picture(source, DRAWN), SURE, self.opened.model.classes)))
        return found

    def _overlays(self, read: _Read) -> list[str]:
        """A picture for each file with what spoke for its class over it, as a data: URL; "" where there is none."""
        if not self.opened.explains:
            raise bad("overlay: this model cannot be looked into")
        label = read.job.asked["label"]
        if label is not None and label not in self.opened.model.classes:
            raise bad("label: the model does not know this class")
        index = None if label is None else self.opened.model.classes.index(label)
        explainer = self.opened.explainer.model()
        from resnetkit.trust.explain import overlays  # which imports torch

        with self.opened.alone:
            pictures = list(overlays(explainer, read.sources, [index] * len(read.sources), SIDE))
        return ["" if isinstance(each, DataError) else _url(each) for each in pictures]

    def _refuse(self, job: Job, refusal: Refused) -> None:
        values = {"status": refusal.status, "code": refusal.code, "error": refusal.what, "after": refusal.retry_after}
        self.worker.send({"kind": "answer", "number": job.number, **values, "digest": _digest(job)})

    def _refusal(self, job: Job, error: Exception) -> Refused:
        """What an exception means to a client; one that is a bug of ours goes to the log."""
        if isinstance(error, Refused):
            return error
        if isinstance(error, UsageError):
            return bad(error.what)
        if isinstance(error, MemoryError):
            return too_large("this takes more memory than there is")
        log_bug(error, str(job.asked.get("request", "")))
        return Refused(500, "bug", "a bug of the server: its log knows this request by its id")


def _refusal_of(error: DataError, number: int) -> Refused:
    what = f"file {number} {error.what}" if not error.what[:1].isdigit() else f"file {number}: {error.what}"
    if OVER.search(error.what):
        return too_large(what)
    if OTHER_KIND.match(error.what):
        return Refused(415, "unsupported", what)
    return Refused(422, "unreadable", what)


def _digest(job: Job) -> str:
    """The first twelve digits of a body's SHA-256, by which the log knows it."""
    return hashlib.sha256(job.body).hexdigest()[:12]


def _url(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
