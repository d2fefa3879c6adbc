"""The routes: the same answers as `resnetkit predict`, the Open Inference Protocol, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnetkit
from conftest import picture
from resnetkit.data.image import Preprocess
from senses import tone, write_wav
from servers import encoded, form_of, living

FILE = {"name": "file", "datatype": "BYTES"}


def rows(files: list[Path], trained: Path, **options: object) -> list[dict[str, object]]:
    """What `resnetkit predict --format jsonl` prints for each, without the path."""
    answers = list(resnetkit.predict(trained, files, backend="torch", **options))
    return [{key: value for key, value in each.row().items() if key != "path"} for each in answers]


def files_of(trained: Path) -> list[Path]:
    return sorted((trained.parent.parent / "photos").rglob("*.png"))


def test_the_answers_of_predict(server, trained: Path) -> None:
    files = files_of(trained)[::6]
    for file in files:
        found = server.post("/predict", file.read_bytes(), "image/png")
        assert found.status == 200
        assert found.json == {"model": "photos", "answers": rows([file], trained)}
    found = server.post("/predict?top=2&coverage=0.5", files[0].read_bytes(), "image/png")
    assert found.json["answers"] == rows(files[:1], trained, top=2, coverage=0.5)


def test_several_files_at_once(server, trained: Path) -> None:
    files = files_of(trained)[:7]
    kind, body = form_of([file.read_bytes() for file in files])
    assert server.post("/predict", body, kind).json["answers"] == rows(files, trained)


def test_one_file_that_cannot_be_read_fails_alone(server, trained: Path, photo: bytes) -> None:
    kind, body = form_of([photo, photo[:200], b"%PDF-1.4 x", photo])
    found = server.post("/predict", body, kind)
    assert found.status == 200
    first, cut, pdf, last = found.json["answers"]
    assert first == last and "label" in first
    assert cut["code"] == "unreadable" and cut["error"].startswith("file 2")
    assert pdf["code"] == "unsupported" and "PDF" in pdf["error"]


@pytest.mark.parametrize("binary", [False, True])
def test_the_open_inference_protocol(server, trained: Path, binary: bool) -> None:
    images = [Image.open(file).convert("RGB") for file in files_of(trained)[::12]]
    pixels = np.stack([np.asarray(image) for image in images])
    model = resnetkit.load(trained, backend="torch")
    expected = model.predict(list(pixels), top=3)
    request = {"id": "42", "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape)}]}
    if binary:
        request["inputs"][0]["parameters"] = {"binary_data_size": pixels.nbytes}
        request["parameters"] = {"binary_data_output": True}
        text = json.dumps(request).encode()
        found = server.post(
            "/v2/models/photos/infer", text + pixels.tobytes(), **{"inference-header-content-length": str(len(text))}
        )
        length = int(found.headers["inference-header-content-length"])
        answer, tail = json.loads(found.body[:length]), found.body[length:]
        outputs = {}
        for each in answer["outputs"]:
            size = each["parameters"]["binary_data_size"]
            outputs[each["name"]], tail = tail[:size], tail[size:]
        assert not tail
        scores = np.frombuffer(outputs["scores"], "<f4").reshape(-1, 3)
        first = struct.unpack("<I", outputs["label"][:4])[0]
        assert outputs["label"][4 : 4 + first].decode() == expected[0].label
    else:
        request["inputs"][0]["data"] = pixels.tolist()
        found = server.post("/v2/models/photos/infer", json.dumps(request), "application/json")
        answer = found.json
        outputs = {each["name"]: each["data"] for each in answer["outputs"]}
        scores = np.array(outputs["scores"], np.float32).reshape(-1, 3)
        assert outputs["label"] == [each.label for each in expected]
    assert found.status == 200 and answer["model_name"] == "photos" and answer["id"] == "42"
    for row, each in zip(scores, expected, strict=True):
        for name, score in zip(each.labels, each.scores, strict=True):
            assert row[model.classes.index(name)] == np.float32(score)


def test_encoded_files_as_tensors(server, trained: Path, photo: bytes) -> None:
    text = base64.b64encode(photo).decode()
    listed = {"inputs": [{**FILE, "shape": [2], "data": [text, text]}], "outputs": [{"name": "label"}]}
    found = server.post("/v2/models/photos/infer", json.dumps(listed), "application/json").json
    (label,) = found["outputs"]
    assert label["shape"] == [2] and label["data"] == ["red", "red"] and "id" not in found
    packed = len(photo).to_bytes(4, "little") + photo
    sent = {"inputs": [{**FILE, "shape": [1], "parameters": {"binary_data_size": len(packed)}}]}
    head = json.dumps(sent).encode()
    again = server.post(
        "/v2/models/photos/infer", head + packed, **{"inference-header-content-length": str(len(head))}
    ).json
    assert again["outputs"][0]["data"] == ["red"]


def test_health_metadata_and_info(server) -> None:
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"live": True, "ready": True}
    assert server.get("/v2").json["extensions"] == ["binary_tensor_data"]
    assert server.get("/v2/models/photos/ready").json == {"name": "photos", "ready": True}
    told = server.get("/v2/models/photos").json
    assert [each["name"] for each in told["inputs"]] == ["file", "pixels"]
    assert {"name": "scores", "datatype": "FP32", "shape": [-1, 3]} in told["outputs"]
    (model,) = server.get("/info").json["models"]
    assert model["classes"] == ["blue", "green", "red"] and model["preprocess"]["size"] == 32 and model["ready"]
    assert "resnet18" in model["card"] and len(model["sha256"]) == 64


def test_several_models_by_name(trained: Path, photo: bytes) -> None:
    with living(("a", trained), ("b", trained)) as live:
        names = [live.post(f"/predict{query}", photo).json["model"] for query in ("", "?model=b", "?model=a")]
        assert names == ["a", "b", "a"]
        assert [each["name"] for each in live.get("/info").json["models"]] == ["a", "b"]
        assert live.post("/predict?model=c", photo).status == 404


def test_an_overlay_on_request(server, photo: bytes) -> None:
    plain = server.post("/predict", photo).json["answers"][0]
    (row,) = server.post("/predict?overlay=true&label=green", photo).json["answers"]
    url = row.pop("overlay")
    assert row == plain and url.startswith("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size == (40, 40)
    assert server.post("/predict?overlay=true&label=purple", photo).status == 400


def test_several_labels(tmp_path: Path) -> None:
    """A model of several labels an image answers with those that are present."""
    network = resnetkit.resnet20(num_classes=3).eval()
    prepare = Preprocess(size=32)
    folder = resnetkit.save(network, tmp_path / "m", classes=["a", "b", "c"], preprocess=prepare, task="multilabel")
    content = encoded(picture((200, 30, 30), 1))
    with living(("m", folder)) as live:
        (row,) = live.post("/predict", content).json["answers"]
        expected = resnetkit.load(folder, backend="torch").predict(Image.open(io.BytesIO(content))).row()
        assert row == {key: value for key, value in expected.items() if key != "path"} and "labels" in row
        outputs = {each["name"] for each in live.get("/v2/models/m").json["outputs"]}
        assert "labels" in outputs


def test_sounds_and_texts(senses, tmp_path: Path) -> None:
    """Their own Content-Types, and what is too long or another kind of file."""
    wav = write_wav(tmp_path / "a.wav", tone("high", 3)).read_bytes()
    assert senses.post("/predict?model=tones", wav, "audio/wav").json["answers"][0]["label"] == "high"
    assert senses.post("/predict?model=words", b"a dull film", "text/plain").json["answers"][0]["label"] == "bad"
    for model, body, kind, status in (
        ("tones", wav, "image/png", 415),
        ("tones", b"\x89PNG\r\n\x1a\n" + bytes(99), "audio/wav", 415),
        ("tones", wav[:30], "audio/wav", 422),
        ("words", b"x" * 2_000_000, "text/plain", 413),
        ("words", b"\xff\x00\xfe", "text/plain", 422),
        ("words", b" \n", "text/plain", 422),
    ):
        assert senses.post(f"/predict?model={model}", body, kind).status == status, (model, body[:9])


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "image/png", 422, "empty"),  # I9
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "image/png", 422, "unreadable"),
        (b"%PDF-1.7 hello", "image/png", 415, "unsupported"),  # I7
        (b"GIF89a", "text/plain", 415, "unsupported"),
        (b"GIF89a", "", 415, "unsupported"),
        (b"GIF89a", "application/x-www-form-urlencoded", 415, "unsupported"),
    ],
)
def test_what_is_no_picture(server, body: bytes, kind: str, status: int, code: str) -> None:
    """I7, I9."""
    found = server.ask("POST", "/predict", body, {"content-type": kind} if kind else {})
    assert (found.status, found.json["code"]) == (status, code)
    assert found.json["request_id"] == found.headers["x-request-id"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/nope",
        "/v2/models/..%2f..%2fetc%2fpasswd",
        "/v2/models/%00",
        "/v2/models/%2e%2e",
        "/v2/models/" + "x" * 5000,
        "/v2/models/%E6%A8%A1%E5%9E%8B",
        "/v2/models/photos/versions/1",
        "/page/..%2fapp.py",
        "/page/app.py",
    ],
)
def test_names_are_looked_up_and_never_paths(server, path: str) -> None:
    """I12."""
    found = server.get(path)
    assert found.status in (400, 404) and set(found.json) == {"error", "code", "request_id"}
    assert server.post(path + "/infer", b"{}", "application/json").status in (400, 404, 405)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/repository/models/photos/load",
        "/v2/repository/models/photos/unload",
        "/models?url=http://x/y.mar",
        "/v2/systemsharedmemory/region/a/register",
        "/v2/logging",
        "/v2/trace/setting",
        "/shutdown",
        "/docs",
        "/redoc",
    ],
)
def test_there_is_no_management(server, path: str) -> None:
    """I14."""
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert server.ask(method, path, b"").status in (404, 405)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/x.png",
        "file:///etc/passwd",
        "gopher://127.0.0.1:25/",
        "http://169.254.169.254/latest/meta-data",
        "http://a\\@b/",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_addresses_are_not_fetched(server, address: str, monkeypatch) -> None:
    """I13."""
    request = {"inputs": [{**FILE, "shape": [1], "data": [address]}]}
    found = server.post("/v2/models/photos/infer", json.dumps(request), "application/json")
    assert found.status == 400 and "base64" in found.json["error"]
    assert server.post("/predict", address.encode(), "image/png").status == 415
    assert server.post("/predict", json.dumps({"url": address}), "application/json").status == 415


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("top=0", "top"),
        ("top=x", "top"),
        ("coverage=nan", "coverage"),
        ("coverage=1", "coverage"),
        ("overlay=9", "overlay"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(server, photo: bytes, query: str, field: str) -> None:
    found = server.post(f"/predict?{query}", photo)
    assert found.status == 400 and found.json["error"].startswith(f"{field}: ")


def test_methods(server) -> None:
    """I26."""
    assert server.get("/predict").status == 405
    assert server.ask("DELETE", "/v2").status == 405
    assert server.ask("PATCH", "/predict", b"x").json["code"] == "no_method"


def test_a_bug_is_a_500_that_tells_nothing(trained: Path, photo: bytes, monkeypatch, capfd) -> None:
    """I34."""
    monkeypatch.setattr("resnetkit.serving.worker.sources_of", lambda *_: {}["/secret/path"])
    with living(trained) as live:
        found = live.post("/predict", photo)
        assert found.status == 500 and "secret" not in found.body.decode() and "Error" not in found.json["error"]
        assert live.get("/v2/health/ready").status == 200
    assert "KeyError" in capfd.readouterr().err


def test_an_answer_that_is_not_finite_is_none(trained: Path, photo: bytes, monkeypatch) -> None:
    """I36."""
    with living(trained) as live:
        monkeypatch.setattr(
            "resnetkit.runtime.backends.TorchBackend.outputs",
            lambda self, batch: (np.full((len(batch), 3), np.nan, np.float32), np.zeros((len(batch), 512), np.float32)),
        )
        found = live.post("/predict", photo)
    assert (found.status, found.json["code"]) == (500, "not_finite") and b"NaN" not in found.body


def test_metrics(server, photo: bytes) -> None:
    server.post("/predict", photo)
    text = server.get("/metrics").body.decode()
    assert 'resnetkit_requests_total{route="/predict",status="200"}' in text
    assert 'resnetkit_queue{model="photos"} 0.0' in text
