"""predict: files, folders, globs and stdin to rows, in the order given."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import tiny, write_classes
from resnetkit import api
from resnetkit.runtime.model import Model


@pytest.fixture
def files(photos: Path) -> list[Path]:
    return [photos / "red" / "10.png", photos / "blue" / "2.png", photos / "green" / "0.png"]


def test_order_formats_and_top(trained: Path, files: list[Path], run_cli) -> None:
    code, out, _ = run_cli("predict", trained, *files, "--format", "jsonl", "--top", "2")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["path"] for row in rows] == [str(path) for path in files]
    assert set(rows[0]) == {"path", "label", "score", "label_2", "score_2"} and rows[0]["score"] >= rows[0]["score_2"]
    code, out, _ = run_cli("predict", trained, *files, "--format", "csv", "--out", "answers.csv")
    assert code == 0 and out == ""
    with Path("answers.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == [row["label"] for row in rows]
    code, out, _ = run_cli("predict", trained, files[0], "--top", "1")
    assert code == 0 and out.startswith(f"{files[0]}  {rows[0]['label']} ")


def test_mirror(trained: Path, tmp_path: Path, run_cli) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    noise.save(tmp_path / "one.png")
    noise.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.png")

    def scores(*flags: str) -> list[float]:
        code, out, _ = run_cli("predict", trained, "one.png", "other.png", "--top", "1", "--format", "jsonl", *flags)
        assert code == 0
        return [json.loads(row)["score"] for row in out.splitlines()]

    plain, mirrored = scores(), scores("--mirror")
    assert mirrored[0] == pytest.approx(mirrored[1], abs=1e-6) and plain[0] != pytest.approx(plain[1], abs=1e-5)


HOSTILE = ["new\nline.png", "tab\t.png", "🐈.png", "\u202etlr.png", os.fsdecode(b"\xff\x80.png"), "-rf.png", "=c.png"]


def test_rows_name_files_byte_for_byte(trained: Path, files: list[Path], run_cli) -> None:
    """A31: JSON gives the very bytes back, and every form keeps to one line a file."""
    Path("in").mkdir()
    for name in HOSTILE:
        shutil.copy(files[0], Path("in") / name)
    code, out, _ = run_cli("predict", trained, "in", "--format", "jsonl")
    paths = [json.loads(line)["path"] for line in out.splitlines()]
    assert code == 0 and {os.fsencode(path) for path in paths} == {os.fsencode(f"in/{name}") for name in HOSTILE}
    for form in ("table", "csv"):
        code, out, _ = run_cli("predict", trained, "in", "--format", form)
        assert code == 0 and len(out.splitlines()) == len(HOSTILE) + (form == "csv")


def test_folders_globs_and_stdin(trained: Path, photos: Path, files: list[Path], run_cli, monkeypatch) -> None:
    def paths(*inputs: object) -> list[str]:
        code, out, err = run_cli("predict", trained, *inputs, "--format", "jsonl", "--top", "1")
        assert code == 0, err
        return [json.loads(line)["path"] for line in out.splitlines()]

    red = [str(photos / "red" / f"{i}.png") for i in range(12)]
    assert paths(photos / "red") == red  # natural order: 2 before 10
    assert paths(f"{photos}/red/*.png") == red
    assert paths(f"{photos}/**/0.png") == [str(photos / name / "0.png") for name in ("blue", "green", "red")]
    listed = "\n".join(map(str, files)) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    assert paths("-") == [str(path) for path in files]


def test_unreadable_files_are_named_and_the_others_answered(trained: Path, files: list[Path], run_cli) -> None:
    """A13-A16 in prediction: exit 4, the others in order."""
    files[1].write_bytes(b"%PDF-1.4")
    code, out, err = run_cli("predict", trained, *files, Path("gone.png"), "--format", "jsonl")
    assert code == 4 and "it looks like PDF" in err and "gone.png: cannot be read: no such file" in err
    assert [json.loads(line)["path"] for line in out.splitlines()] == [str(files[0]), str(files[2])]
    assert "2 of 4 files could not be read" in err


@pytest.mark.parametrize(("inputs", "code"), [(["no/*.png"], 3), (["."], 3)])
def test_inputs_that_match_nothing(trained: Path, run_cli, inputs: list[str], code: int) -> None:
    found, _, err = run_cli("predict", trained, *inputs)
    assert found == code and err.count("\n") == 1


def test_evaluation_and_prediction_are_bit_equal(trained: Path) -> None:
    """One preprocess, one network: the logits of eval are those that load().predict sees."""
    photos = trained.parent.parent / "photos"
    scores = api.evaluate(trained, photos, quiet=True)
    model = api.load(trained)
    answers = [answer for _, answer in model.answers([photos / path for path in scores.paths])]
    assert np.array_equal(scores.logits, np.stack(answers))


def test_a_changed_byte_is_refused(trained: Path, files: list[Path], run_cli, tmp_path: Path) -> None:
    """D2: exit 5."""
    import shutil

    copy = shutil.copytree(trained / "model", tmp_path / "copy")
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[5000] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    code, _, err = run_cli("predict", copy, files[0])
    assert code == 5 and "SHA-256" in err


def test_a_closed_pipe_is_no_error(trained: Path, photos: Path) -> None:
    """C11: predict ... | head."""
    predict = (
        f'"{sys.executable}" -m resnetkit predict "{trained}" --backend torch "{photos}" "{photos}" --format jsonl'
    )
    command = f"{predict} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 1


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with more than the 38 validation images that novelty takes."""
    root = tmp_path_factory.mktemp("calibrated")
    settings = dict(text.split("=") for text in tiny()[1::2])
    photos = write_classes(root / "photos", counts=30)
    api.train(photos, out=root / "run", settings={**settings, "data.val": 0.5, "data.test": 0.0}, quiet=True)
    return root / "run"


def test_a_calibrated_model_says_where_it_is_not_sure(calibrated: Path, files: list[Path], run_cli) -> None:
    kept = json.loads((calibrated / "model" / "model.json").read_text())["calibration"]
    assert kept["n"] >= 38 and kept["temperature"] > 0 and kept["sets"] == "lac"
    assert kept["after"]["low"] <= kept["after"]["value"] <= kept["after"]["high"]
    code, out, _ = run_cli("predict", calibrated, *files, "--format", "jsonl", "--coverage", "0.9")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(rows) == 3
    for row in rows:
        inside = row["set"].split("|") if row["set"] else []
        assert set(inside) <= {"blue", "green", "red"} and row["uncertain"] == (len(inside) != 1)
        assert 0 <= row["novelty"] < 1 and row["novel"] == (row["novelty"] >= 0.95)
    code, out, _ = run_cli("predict", calibrated, *files, "--format", "csv")
    assert code == 0 and "set" not in out.splitlines()[0] and "uncertain" in out.splitlines()[0]
    code, out, _ = run_cli("predict", calibrated, *files, "--coverage", "0.9", "--top", "1")
    words = [("not sure" in line, "novel" in line) for line in out.splitlines()]
    assert words == [(bool(row["uncertain"]), bool(row["novel"])) for row in rows] and " one of " in out


def test_scores_are_those_of_the_temperature(calibrated: Path, files: list[Path]) -> None:
    model = api.load(calibrated, device="cpu")
    assert model.temperature == model.checkpoint.calibration.temperature
    batch = np.stack([model.read(path) for path in files])
    logits, embeddings = model.backend.outputs(batch)
    answers = np.stack([answer for _, answer in model.answers(files)])
    np.testing.assert_allclose(answers * model.temperature, logits, rtol=1e-4, atol=1e-5)
    head = (model.checkpoint.tensors[name] for name in ("fc.weight", "fc.bias"))
    weight, bias = head
    np.testing.assert_allclose(embeddings @ weight.T + bias, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("coverage", "text"), [("0.99", "takes 99 validation images"), ("1", "between 0 and 1"), ("nan", "between 0 and 1")]
)
def test_a_coverage_that_nobody_can_promise(calibrated: Path, files: list[Path], run_cli, coverage, text) -> None:
    code, out, err = run_cli("predict", calibrated, files[0], "--coverage", coverage)
    assert code == 2 and out == "" and text in err and err.count("\n") == 1


def test_no_coverage_without_calibration(trained: Path, files: list[Path], run_cli, tmp_path: Path) -> None:
    from torch import nn

    network = api.resnet18(num_classes=2)
    assert isinstance(network, nn.Module)
    api.save(network, tmp_path / "bare")
    code, _, err = run_cli("predict", tmp_path / "bare", files[0], "--coverage", "0.9")
    assert code == 2 and "is not calibrated" in err
    code, out, _ = run_cli("predict", tmp_path / "bare", files[0], "--format", "jsonl")
    assert code == 0 and not {"uncertain", "novel", "set"} & set(json.loads(out))


def test_a_damaged_calibration_is_refused(calibrated: Path, files: list[Path], run_cli, tmp_path: Path) -> None:
    shutil.copytree(calibrated / "model", tmp_path / "model")
    (tmp_path / "model" / "calibration.safetensors").unlink()
    code, _, err = run_cli("predict", tmp_path / "model", files[0])
    assert code == 5 and "calibration.safetensors" in err


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_what_was_answered_before_ctrl_c_is_kept_and_resumed(
    trained: Path, photos: Path, run_cli, monkeypatch, form
) -> None:
    inputs = [photos / "red", photos / "blue"]
    assert run_cli("predict", trained, *inputs, "--format", form, "--out", "whole")[0] == 0
    predictions = Model.predictions

    def interrupted(model, sources, *more):
        for count, each in enumerate(predictions(model, sources, *more)):
            if count == 5:
                raise KeyboardInterrupt
            yield each

    with monkeypatch.context() as patch:
        patch.setattr(Model, "predictions", interrupted)
        code, _, err = run_cli("predict", trained, *inputs, "--format", form, "--out", "answers")
    assert code == 130 and "answers.partial holds the answers so far" in err and not Path("answers").exists()
    with Path("answers.partial").open("a") as file:
        file.write("cut sho")  # as a crash leaves it
    code, _, err = run_cli("predict", trained, *inputs, "--format", form, "--out", "answers", "--resume")
    assert code == 0 and "5 answers are there already" in err and not Path("answers.partial").exists()
    assert Path("answers").read_bytes() == Path("whole").read_bytes()


def test_answers_are_never_lost_or_mixed(trained: Path, photos: Path, run_cli) -> None:
    red = photos / "red"
    for name in ("answers.partial", "answers.call"):
        Path(name).write_text("{}")
    code, _, err = run_cli("predict", trained, red, "--format", "csv", "--out", "answers")
    assert code == 2 and "holds answers so far" in err and Path("answers.partial").read_text() == "{}"
    code, _, err = run_cli("predict", trained, red, "--format", "csv", "--out", "answers", "--resume")
    assert code == 2 and "holds answers with another format and model and mirror" in err
    Path("answers.call").unlink()
    assert (
        "does not say what it is of"
        in run_cli("predict", trained, red, "--out", "answers", "--format", "csv", "--resume")[2]
    )
    code, _, err = run_cli("predict", trained, red, "--resume", "--out", "answers")
    assert code == 2 and "a table cannot be resumed" in err
    assert run_cli("predict", trained, red, "--out", "answers", "--overwrite")[0] == 0
    assert sorted(path.name for path in Path().glob("answers*")) == ["answers"]
    whole = Path("answers").read_text()
    for flags, text in (((), "is there already"), (("--resume",), "is finished already")):
        code, _, err = run_cli("predict", trained, red, "--out", "answers", *flags)
        assert code == 2 and text in err and Path("answers").read_text() == whole
    assert "nothing to go on with" in run_cli("predict", trained, red, "--out", "new", "--resume")[2]
    assert "exclude" in run_cli("predict", trained, red, "--out", "new", "--resume", "--overwrite")[2]
    assert "--out" in run_cli("predict", trained, red, "--resume")[2]
    code, _, err = run_cli("predict", "nothing", red, "--out", "other")
    assert code == 5 and not list(Path().glob("other*"))


def test_a_name_like_a_formula_is_resumed_once(trained: Path, files: list[Path], run_cli, monkeypatch) -> None:
    for name in ("=a.png", "b.png"):
        shutil.copy(files[0], name)
    predictions = Model.predictions
    with monkeypatch.context() as patch:

        def interrupted(model, sources, *more):
            yield next(iter(predictions(model, sources, *more)))
            raise KeyboardInterrupt

        patch.setattr(Model, "predictions", interrupted)
        assert run_cli("predict", trained, "=a.png", "b.png", "--format", "csv", "--out", "answers")[0] == 130
    assert run_cli("predict", trained, "=a.png", "b.png", "--format", "csv", "--out", "answers", "--resume")[0] == 0
    with Path("answers").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["'=a.png", "b.png"]


def test_mirrored_answers_promise_nothing(calibrated: Path, files: list[Path], run_cli) -> None:
    code, _, err = run_cli("predict", calibrated, files[0], "--mirror", "--coverage", "0.8")
    assert code == 2 and "mirrored" in err
    code, out, _ = run_cli("predict", calibrated, files[0], "--mirror", "--format", "jsonl")
    assert code == 0 and not {"uncertain", "novel"} & set(json.loads(out))
