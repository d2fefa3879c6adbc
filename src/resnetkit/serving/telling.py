"""Predictions to the bodies of answers. JSON is strict: an answer that is not finite is no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.serving.refusal import Refused, bad
from resnetkit.serving.tensors import Tensors
from resnetkit.tasks.boxes import Boxes
from resnetkit.tasks.masks import Mask

BYTES, BOOL, FLOAT = "BYTES", "BOOL", "FP32"
TYPES = {FLOAT: "<f4", BOOL: "?"}


@dataclass(frozen=True)
class Column:
    """One output for all rows of a request.

    Attributes:
        name: of the output.
        datatype: as the Open Inference Protocol calls it.
        values: [N], or [N, K].
    """

    name: str
    datatype: str
    values: NDArray[Any]

    @property
    def described(self) -> dict[str, Any]:
        """As the protocol describes an output: any number of rows."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.values.shape[1:]]}

    @property
    def packed(self) -> bytes:
        """As bytes behind the JSON."""
        if self.datatype == BYTES:
            each = [text.encode("utf-8") for text in self.values.tolist()]
            return b"".join(len(text).to_bytes(4, "little") + text for text in each)
        return np.ascontiguousarray(self.values, TYPES[self.datatype]).tobytes()


def strict_json(value: Any) -> bytes:
    """JSON in which every number is finite.

    Raises:
        Refused: one is not.
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise Refused(500, "not_finite", "the model gave an answer that is not finite") from error


def row_of(answer: Any) -> dict[str, Any]:
    """A prediction as `resnetkit predict --format jsonl` prints it, but for the path, which uploads have none of.

    Of boxes and of the classes of a mask, which take a row each, a list of rows under `found`.
    """
    if isinstance(answer, Boxes | Mask):
        rows = answer.full_rows() if not isinstance(answer, Boxes) or len(answer) else []
        return {"found": [{name: value for name, value in row.items() if name != "path"} for row in rows]}
    return {name: value for name, value in answer.row().items() if name != "path"}


def columns_of(answers: Sequence[Any], classes: Sequence[str]) -> list[Column]:
    """The outputs of the Open Inference Protocol: label and scores [N, K] in the order of the classes, and doubts.

    Of predictions that are not of scores of classes: their rows as JSON.
    """
    rows = [row_of(each) for each in answers]
    scored = all(not isinstance(each, Boxes | Mask) and len(getattr(each, "scores", ())) for each in answers)
    if not scored or not all(len(each.scores) == len(classes) for each in answers):
        return [_texts("answer", [json.dumps(row, allow_nan=False) for row in rows])]
    index = {name: k for k, name in enumerate(classes)}
    scores = np.zeros((len(answers), len(classes)), np.float32)
    for row, answer in zip(scores, answers, strict=True):
        row[[index[name] for name in answer.labels]] = answer.scores
    if not np.isfinite(scores).all():
        raise Refused(500, "not_finite", "the model gave an answer that is not finite")
    found = [_texts("label", [row["label"] for row in rows]), Column("scores", FLOAT, scores)]
    if "labels" in rows[0]:
        found.append(_texts("labels", [row["labels"] for row in rows]))
    for name, kind in (("uncertain", BOOL), ("novel", BOOL), ("novelty", FLOAT)):
        if name in rows[0]:
            found.append(Column(name, kind, np.array([row[name] for row in rows], TYPES[kind])))
    return found


def _texts(name: str, texts: list[str]) -> Column:
    return Column(name, BYTES, np.array(texts, object))


def told(columns: Sequence[Column], request: Tensors, model: str) -> tuple[dict[str, str], bytes]:
    """The answer to a request of the Open Inference Protocol: headers and body.

    Raises:
        Refused: it asks for an output that there is not.
    """
    known = {column.name: column for column in columns}
    for name in request.outputs or ():
        if name not in known:
            raise bad(f"outputs[].name {name[:40]!r} is none of {', '.join(known)}")
    chosen = [known[name] for name in request.outputs or known]
    described, tails = [], []
    for column in chosen:
        one: dict[str, Any] = {**column.described, "shape": list(column.values.shape)}
        if request.binary is None or column.name in request.binary:
            tails.append(column.packed)
            described.append({**one, "parameters": {"binary_data_size": len(tails[-1])}})
        else:
            described.append({**one, "data": column.values.ravel().tolist()})
    named: Mapping[str, Any] = {} if request.id is None else {"id": request.id}
    text = strict_json({"model_name": model, **named, "outputs": described})
    if not tails:
        return {"content-type": "application/json"}, text
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(text))}
    return headers, b"".join([text, *tails])
