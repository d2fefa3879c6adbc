"""What the OpenAPI document says of bodies: their forms, with an example each. Nothing is parsed by these."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from resnetkit.serving.forms import FORM, JSON, MEDIA, OCTETS

BINARY = {"type": "string", "format": "binary"}
DESCRIPTION = """Answers of residual networks, for people (`/`) and programs.

`POST /predict` takes files as they are; `/v2` is the Open Inference Protocol. No address is ever fetched, and no model
can be loaded, changed or removed through this interface. Every error is `{"error", "code", "request_id"}`.
"""


class Problem(BaseModel):
    """Why there is no answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"error": "the file is empty", "code": "empty"}]})
    error: str
    code: str
    request_id: str | None = None


class Answers(BaseModel):
    """One answer for each file, in their order: a row of `predict --format jsonl` without its path, or why not."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "photos",
                    "answers": [{"label": "cat", "score": 0.93, "label_2": "dog", "score_2": 0.07, "uncertain": 0}],
                }
            ]
        }
    )
    model: str
    answers: list[dict[str, Any]]


class Info(BaseModel):
    """What this server answers with."""

    server: dict[str, Any]
    models: list[dict[str, Any]]
    limits: dict[str, Any]


class Live(BaseModel):
    """Whether the server is there."""

    live: bool


class Ready(BaseModel):
    """Whether every model answers."""

    live: bool
    ready: bool


class ModelReady(BaseModel):
    """Whether a model answers."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """The server, as the Open Inference Protocol describes one."""

    name: str
    version: str
    extensions: list[str]


class Tensor(BaseModel):
    """An input or an output."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model, as the Open Inference Protocol describes one: it takes one of its inputs."""

    name: str
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class Output(Tensor):
    """An output with its values, or with `parameters.binary_data_size` where they stand behind the JSON."""

    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Inferred(BaseModel):
    """The answer of the Open Inference Protocol."""

    model_name: str
    id: str | None = None
    outputs: list[Output]


INPUT = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"enum": ["file", "pixels"]},
        "datatype": {"enum": ["BYTES", "UINT8"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 4},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
        "data": {"type": "array"},
    },
}
REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 256},
        "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
        "inputs": {"type": "array", "items": INPUT, "minItems": 1, "maxItems": 1},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
    },
}
EXAMPLE = {
    "id": "42",
    "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0, 0, 0] * 4}],
    "outputs": [{"name": "label"}, {"name": "scores"}],
}
FORM_BODY = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "items": BINARY, "minItems": 1}},
}
PREDICT_BODY = {
    "requestBody": {
        "required": True,
        "description": "A file as it is, or a form with one part of any name for each file.",
        "content": {**{kind: {"schema": BINARY} for kind in (OCTETS, *MEDIA.values())}, FORM: {"schema": FORM_BODY}},
    }
}
INFER_BODY = {
    "requestBody": {
        "required": True,
        "description": "JSON; or JSON and tensors behind it, with Inference-Header-Content-Length.",
        "content": {JSON: {"schema": REQUEST, "example": EXAMPLE}, OCTETS: {"schema": BINARY}},
    }
}
WORDS = {
    400: "The request is malformed; the text names the field.",
    401: "The token is missing or wrong.",
    403: "Host or Origin is not this server's.",
    404: "There is no such model or route.",
    405: "The route has another method.",
    408: "Headers or body did not come in time.",
    413: "More than there may be: bytes, pixels, files.",
    414: "The address is too long.",
    415: "This kind of content is not taken.",
    422: "The right kind, but empty or unreadable.",
    429: "This client asks too often; see Retry-After.",
    431: "The headers are too large.",
    500: "A bug of the server, or an answer that is not finite.",
    503: "Too much waits, or the model is not ready, or the server ends; see Retry-After.",
    504: "The deadline passed.",
}
ASKING = (400, 401, 403, 404, 405, 408, 413, 414, 415, 422, 429, 431, 500, 503, 504)
LOOKING = (400, 401, 403, 404, 405, 408, 413, 414, 415, 431, 500, 503)


def problems(statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    """How errors of these statuses are described."""
    return {status: {"model": Problem, "description": WORDS[status]} for status in statuses}
