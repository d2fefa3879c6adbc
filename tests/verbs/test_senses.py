"""Sounds and texts by the same verbs as images: train, resume, eval, predict, embed, compare, check, export."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import resnetkit
from resnetkit import api
from resnetkit import recipe as recipes
from resnetkit.recipe import parse_setting
from resnetkit.verbs import doctor
from senses import GOOD, TINY, babble, data_of, sentences, tone, write_reviews, write_tones, write_wav

pytest.importorskip("soundfile")
pytest.importorskip("tokenizers")
BOTH = pytest.mark.parametrize("kind", ["sounds", "texts"])


def flags(kind: str, *more: str) -> list[str]:
    settings = dict(each.split("=", 1) for each in (*TINY[kind], *more))
    return [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session", params=["sounds", "texts"])
def learnt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Which kind, its data, and a run on it."""
    kind = request.param
    root = tmp_path_factory.mktemp(kind)
    source = data_of(kind, root)
    settings = dict(map(parse_setting, TINY[kind]))
    return kind, source, api.train(source, out=root / "runs" / kind, settings=settings, quiet=True).folder


def weights(run: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(run / "model" / "model.safetensors")


def test_it_learns(learnt) -> None:
    kind, _, run = learnt
    accuracy = json.loads((run / "metrics.json").read_text())["accuracy"]
    assert accuracy["value"] >= 0.85 and accuracy["n"] >= 9
    meta = json.loads((run / "model" / "model.json").read_text())
    assert (meta["task"], meta["variant"]) == {"sounds": ("sound", "resnet18"), "texts": ("text", "words")}[kind]
    assert not (run / "model" / "config.json").exists()  # timm has no such network
    told = recipes.read(run / "recipe.toml")
    assert "auto" not in (told.sound.rate, told.sound.mean) if kind == "sounds" else told.text.tokens > 10


def test_eval_gives_the_scores_of_the_run(learnt, run_cli) -> None:
    _, source, run = learnt
    code, out, _ = run_cli("eval", run, source, "--json", "--quiet")
    found, before = json.loads(out)["metrics"], json.loads((run / "metrics.json").read_text())
    assert code == 0 and found["accuracy"] == before["accuracy"]


def test_predict(learnt, tmp_path: Path, run_cli) -> None:
    kind, source, run = learnt
    if kind == "sounds":
        write_wav(tmp_path / "new" / "a.wav", tone("low", 77))
        write_wav(tmp_path / "new" / "long.wav", tone("high", 78, 4.0))
        (tmp_path / "new" / "empty.wav").write_bytes(b"")
        wanted = {"a.wav": "low", "long.wav": "high"}
    else:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "a.txt").write_text(f"a {GOOD[0]} and {GOOD[1]} film")
        (tmp_path / "new" / "empty.txt").write_text(" \n")
        (tmp_path / "new" / "more.csv").write_text("id,text\n1,the plot was dull and awful\n2,a brilliant story\n")
        wanted = {"a.txt": "good", "more.csv#line=2": "bad", "more.csv#line=3": "good"}
    code, out, err = run_cli("predict", run, tmp_path / "new", "--format", "jsonl", "--backend", "torch")
    rows = {Path(row["path"]).name: row for row in map(json.loads, out.splitlines())}
    assert code == 4 and "empty" in err
    assert {name: row["label"] for name, row in rows.items()} == wanted
    if kind == "texts":
        code, out, _ = run_cli("predict", run, "what a lovely and charming cast", "--format", "jsonl")
        assert code == 0 and json.loads(out)["label"] == "good"


def test_python(learnt) -> None:
    kind, _, run = learnt
    model = resnetkit.load(run, backend="torch")
    if kind == "sounds":
        answer = model.predict(tone("rising", 5).astype(np.float32))
        assert answer.label == "rising" and answer.path == ""
        assert model.predict([tone("low", 6).astype(np.float32)])[0].label == "low"
    else:
        assert [one.label for one in model.predict(["a dull, clumsy story", "a moving film"])] == ["bad", "good"]


@BOTH
def test_resume_is_exact(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetkit.errors import Interrupted
    from resnetkit.verbs import fit

    source, settings = data_of(kind, tmp_path), dict(map(parse_setting, TINY[kind]))
    whole = api.train(source, out="whole", settings=settings, quiet=True).folder
    end, calls = fit._end_epoch, []

    def stop(job, stage, state, tick, seconds):
        end(job, stage, state, tick, seconds)
        calls.append(tick.step)
        if len(calls) == 2:
            raise Interrupted(2, path="cut", fix="")

    saves = fit.Saver.due
    monkeypatch.setattr(fit.Saver, "due", lambda self, epoch: True)
    monkeypatch.setattr(fit, "_end_epoch", stop)
    with pytest.raises(Interrupted):
        api.train(source, out="cut", settings=settings, quiet=True)
    monkeypatch.setattr(fit, "_end_epoch", end)
    monkeypatch.setattr(fit.Saver, "due", saves)
    cut = api.train(out="cut", resume=True, quiet=True).folder
    first, second = weights(whole), weights(cut)
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_embed_and_compare(learnt, tmp_path: Path, run_cli) -> None:
    kind, source, run = learnt
    inputs = source if kind == "texts" else source / "low"
    code, out, _ = run_cli("embed", run, inputs, "--out", "features.npy", "--quiet")
    features = np.load("features.npy")
    assert code == 0 and len(features) == (200 if kind == "texts" else 20) and np.isfinite(features).all()
    code, out, _ = run_cli("compare", run, run, source, "--json", "--quiet")
    assert code == 0


def test_report(learnt) -> None:
    kind, _, run = learnt
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"test {kind} the model names" in page
    assert ("data:audio/wav" in page and "data:image/jpeg" in page) if kind == "sounds" else "<blockquote>" in page


@BOTH
def test_dry_run_and_time_limit(kind: str, tmp_path: Path, run_cli) -> None:
    source = data_of(kind, tmp_path)
    code, _, err = run_cli("train", source, *flags(kind), "--dry-run")
    assert code == 0 and "plan:" in err and not Path("runs").exists()
    code, out, err = run_cli("train", source, *flags(kind, "train.epochs=500"), "--time-limit", "12s", "--json")
    assert code == 0 and json.loads(out)["metrics"]["accuracy"]["n"] > 0


def test_check_of_sounds(tmp_path: Path, run_cli) -> None:
    root = tmp_path / "sounds"
    for split, start in (("train", 0), ("test", 50)):
        for name in ("high", "low"):
            for i in range(12):
                write_wav(root / split / name / f"{i}.wav", tone(name, start + i + 1_000 * (name == "low")))
    write_wav(root / "train" / "low" / "silent.wav", np.zeros(4_000))
    write_wav(root / "train" / "low" / "clipped.wav", np.clip(9 * tone("low", 3), -1, 1))
    shutil.copy(root / "train" / "low" / "1.wav", root / "test" / "low" / "copy.wav")
    (root / "train" / "high" / "broken.wav").write_bytes(b"RIFF")
    spoken = babble(0, 0.8, 8_000)
    write_wav(root / "train" / "high" / "spoken.wav", spoken)
    write_wav(root / "test" / "high" / "softer.wav", np.pad(0.3 * spoken, (500, 100)))
    code, out, _ = run_cli("check", root, "--json", "--quiet")
    kinds = {each["kind"]: each for each in json.loads(out)["findings"]}
    assert code == 3 and kinds["copies_across"]["severity"] == "refuse"
    assert [each["path"] for each in kinds["near_silent"]["items"]] == ["train/low/silent.wav"]
    assert [each["path"] for each in kinds["clipped"]["items"]] == ["train/low/clipped.wav"]
    assert kinds["unreadable"]["count"] == 1
    pairs = [each["paths"] for each in kinds["near_across"]["items"]]
    assert ["test/high/softer.wav", "train/high/spoken.wav"] in [sorted(pair) for pair in pairs]
    code, _, err = run_cli("train", root, *flags("sounds"))
    assert code == 3 and "the same sound is in two splits" in err


def test_check_of_texts(tmp_path: Path, run_cli) -> None:
    rows = [(text, label, ("train", "test")[i % 4 == 3]) for i, (text, label) in enumerate(sentences(60))]
    rows += [(rows[0][0].upper(), rows[0][1], "test"), ("", "good", "train"), (rows[4][0], rows[4][1], "train")]
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label", "split"), *rows])
    code, out, _ = run_cli("check", tmp_path / "reviews.csv", "--json", "--quiet")
    found = json.loads(out)
    kinds = {each["kind"]: each for each in found["findings"]}
    assert code == 3 and found["texts"] == 62
    assert kinds["copies_across"]["count"] == 1 and kinds["copies_across"]["items"][0]["texts"]
    assert kinds["copies"]["count"] == 1 and "empty texts" in kinds["ignored"]["text"]


def test_groups_that_straddle_splits_are_told(tmp_path: Path, run_cli) -> None:
    lines = ["path,label,split,group"]
    for i in range(24):
        name, split = ("high", "low")[i % 2], ("train", "test")[i >= 16]
        write_wav(tmp_path / f"{i}.wav", tone(name, i))
        lines.append(f"{i}.wav,{name},{split},speaker{i % 3}")
    (tmp_path / "sounds.csv").write_text("\n".join(lines) + "\n")
    _, out, _ = run_cli("check", tmp_path / "sounds.csv", "--json", "--quiet")
    kinds = {each["kind"]: each for each in json.loads(out)["findings"]}
    assert kinds["groups_across"]["severity"] == "look" and kinds["groups_across"]["count"] == 24
    code, _, err = run_cli("train", tmp_path / "sounds.csv", *flags("sounds", "train.epochs=1"))
    assert code == 0 and "groups are in two splits" in err


@pytest.mark.parametrize("form", ["onnx", "openvino", "ncnn", "safetensors", "torchvision"])
def test_export(learnt, form: str, tmp_path: Path, run_cli) -> None:
    kind, source, run = learnt
    code, _, err = run_cli("export", run, "--format", form, "--out", tmp_path / "out", "--quiet")
    if form not in ("onnx", "openvino"):
        assert code == 2 and "images" in err, err
        return
    assert code == 0, err
    inputs = source if kind == "texts" else source / "low"
    code, out, _ = run_cli("predict", tmp_path / "out", inputs, "--format", "jsonl")
    before = run_cli("predict", run, inputs, "--format", "jsonl", "--backend", "torch")[1]
    for one, other in zip(out.splitlines(), before.splitlines(), strict=True):
        found, wanted = json.loads(one), json.loads(other)
        assert code == 0 and found["label"] == wanted["label"] and abs(found["score"] - wanted["score"]) < 1e-3
    golden = json.loads((tmp_path / "out" / "golden.json").read_text())
    assert len(golden["logits"]) == len(resnetkit.load(run).classes)


def test_several_labels(tmp_path: Path, run_cli) -> None:
    lines = ["path,labels"]
    for i in range(40):
        present = [name for k, name in enumerate(("high", "low")) if (i >> k) & 1]
        parts = [tone(name, 2 * i + k) for k, name in enumerate(present)] or [np.zeros(4_800)]
        write_wav(tmp_path / f"{i}.wav", np.sum(parts, 0) / 2 + np.random.default_rng(i).normal(0, 0.01, 4_800))
        lines.append(f"{i}.wav,{'|'.join(present)}")
    (tmp_path / "sounds.csv").write_text("\n".join(lines) + "\n")
    code, out, _ = run_cli("train", tmp_path / "sounds.csv", *flags("sounds"), "--json", "--quiet")
    assert code == 0 and json.loads(out)["metrics"]["mAP"]["value"] > 0.8
    with (tmp_path / "texts.jsonl").open("w") as file:
        for text, label in sentences(60):
            file.write(json.dumps({"text": text, "labels": [label, "review"]}) + "\n")
    code, out, _ = run_cli("train", tmp_path / "texts.jsonl", *flags("texts"), "--json", "--quiet")
    assert code == 0 and json.loads(out)["metrics"]["AP/review"]["value"] == 1.0


@pytest.mark.parametrize("variant", ["vdcnn9", "wave34", "speaker34", "resnet34"])
def test_other_networks(variant: str, tmp_path: Path, run_cli) -> None:
    kind = "texts" if variant == "vdcnn9" else "sounds"
    source = write_tones(tmp_path / "tones", 6) if kind == "sounds" else write_reviews(tmp_path / "reviews.csv", 40)
    more = ("train.epochs=1", "text.length=64") if kind == "texts" else ("train.epochs=1",)
    code, _, err = run_cli("train", source, "--model", variant, *flags(kind, *more), "--out", "run", "--quiet")
    assert code == 0, err
    own = recipes.read(Path("run/recipe.toml")).sound
    assert (own.voice == 0) == (variant == "speaker34"), "a voice is what it shall be known by"
    names = safetensors.numpy.load_file("run/model/model.safetensors")
    assert not [name for name in names if name.startswith("others")], "what only training tells apart stays there"
    code, out, err = run_cli("predict", "run", source, "--backend", "torch", "--format", "jsonl")
    assert code == 0, err
    pytest.importorskip("onnxruntime")
    code, _, err = run_cli("export", "run", "--format", "onnx", "--out", "out", "--quiet")
    assert code == 0, err
    code, again, _ = run_cli("predict", "out", source, "--format", "jsonl")
    for one, other in zip(out.splitlines(), again.splitlines(), strict=True):
        found, wanted = json.loads(one), json.loads(other)
        assert code == 0 and found["label"] == wanted["label"] and abs(found["score"] - wanted["score"]) < 1e-3


@pytest.mark.parametrize(
    "words, what",
    [
        (["--model", "words"], "there is no model 'words' for sounds"),
        (["--set", "sound.kept=0.1", "--set", "sound.seconds=0.5"], "sound.kept"),
        (["--set", "augment.cutmix=0.5"], "of images"),
        (["--set", "sound.mels=200", "--set", "sound.window=0.01"], "do not go together"),
        (["--set", "model.shortcut=none"], "shortcut must be"),
    ],
)
def test_settings_that_cannot_be(words: list[str], what: str, tmp_path: Path, run_cli) -> None:
    code, _, err = run_cli("train", write_tones(tmp_path / "tones", 6), *words)
    assert code == 2 and what in err and err.count("\n") <= 3


def test_explain(learnt, run_cli) -> None:
    kind, source, run = learnt
    inputs = [source / "low"] if kind == "sounds" else ["a lovely , charming story", "the plot was dull"]
    code, out, err = run_cli("explain", run, *inputs, "--out", "why", "--nearest", "2", "--json", "--quiet")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    page = Path("why/index.html").read_text(encoding="utf-8")
    assert len(rows) == (20 if kind == "sounds" else 2) and all("nearest_2_label" in row for row in rows)
    if kind == "sounds":
        from PIL import Image

        for row in rows:
            with Image.open(row["overlay"]) as overlay:
                assert overlay.size == (1024, 512)
        assert page.count("data:audio/wav") == 20 and "From left to right runs time" in page
    else:
        assert "lovely" in rows[0]["words"] or "charming" in rows[0]["words"]
        assert "dull" in rows[1]["words"] and not list(Path("why").glob("*.png")) and page.count("<article>") == 2
    code, _, err = run_cli("explain", run, *inputs, "--out", "why", "--overwrite", "--label", "nobody")
    assert code == 2 and "does not know the class" in err


def test_bench(learnt, run_cli) -> None:
    kind, source, run = learnt
    inputs = source / "low" if kind == "sounds" else source
    code, out, err = run_cli("bench", run, inputs, "--seconds", "0.05", "--batch", "2", "--json", "--quiet")
    assert code == 0, err
    found = json.loads(out)
    assert found["input"] == ("0.75 s at 8,000 Hz" if kind == "sounds" else "16 tokens")
    assert found["from_files"][0]["files"] == (20 if kind == "sounds" else 200)
    assert all(each["agreement"] == 1 for each in found["measured"])
    code, out, _ = run_cli("bench", run, "--backend", "torch", "--seconds", "0.05", "--batch", "2", "--quiet")
    assert code == 0 and f"{kind}/s" in out


def test_doctor_counts_what_the_model_takes(learnt, run_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, _, run = learnt
    monkeypatch.setattr(doctor, "SECONDS", 0.01)
    code, out, _ = run_cli("doctor", run)
    assert code == 0 and f"{kind}/s in batches of 16" in out and "images/s" not in out
    assert f" at {'0.75 s at 8,000 Hz' if kind == 'sounds' else '16 tokens'}: " in out


def test_mirror_is_of_images(learnt, run_cli) -> None:
    kind, source, run = learnt
    code, _, err = run_cli("predict", run, source, "--mirror")
    assert code == 2 and f"{kind} have no mirror image" in err


def test_long_files_are_answered_in_windows(tmp_path: Path, run_cli) -> None:
    """The scores of a run are those of eval: of all of each file, not of its middle."""
    root = write_tones(tmp_path / "tones", 10, 1.5)
    for i in range(4):  # silence in the middle
        quiet = np.concatenate([tone("low", i, 0.5), np.zeros(4_000), tone("low", i, 0.5)])
        write_wav(root / "low" / f"gap{i}.wav", quiet)
    settings = ("sound.seconds=0.5", "train.epochs=3")
    code, out, err = run_cli("train", root, *flags("sounds", *settings), "--out", "run", "--json")
    before = json.loads(out)["metrics"]
    assert code == 0 and "0.5 s at 8,000 Hz" in err
    told = recipes.read("run/recipe.toml").sound
    assert told.kept == 1.5
    code, out, _ = run_cli("eval", "run", root, "--json", "--quiet")
    assert code == 0 and json.loads(out)["metrics"] == before
    model = resnetkit.load("run", backend="torch")
    (_, whole) = next(model.outputs([root / "low" / "0.wav"]))
    parts = model.windows(root / "low" / "0.wav")
    each = np.concatenate(model.backend.outputs(parts), 1)
    assert len(parts) == 5 and np.allclose(whole, each.mean(0), atol=1e-5)


SOUNDS = {
    "silence": np.zeros(4_800, np.float32),
    "one sample": np.full(1, 0.5, np.float32),
    "shorter than a frame": np.full(50, 0.1, np.float32),
    "an offset": np.full(4_800, 0.9, np.float32),
    "beyond full scale": 5 * tone("low", 1).astype(np.float32),
    "denormal": np.full(4_800, 1e-40, np.float32),
    "stereo": np.stack([tone("low", 1), tone("high", 2)], 1).astype(np.float32),
}
TEXTS = {
    "no known word": "gibt es nicht 你好 здравствуйте",
    "accents on accents": "a" + "\u0301" * 5_000,
    "no width": "\u200b\u200b x",
    "right to left": "\u202eabc film",
    "signs": "?!... ,",
    "long": "dull " * 100_000,
}


def test_odd_inputs_have_finite_answers(learnt) -> None:
    kind, _, run = learnt
    model = resnetkit.load(run, backend="torch")
    for name, value in (SOUNDS if kind == "sounds" else TEXTS).items():
        answer = model.predict(value)
        assert np.isfinite(answer.scores).all() and abs(sum(answer.scores) - 1) < 1e-4, name


def test_refused_inputs(learnt) -> None:
    from resnetkit.errors import DataError, UsageError

    kind, _, run = learnt
    model = resnetkit.load(run, backend="torch")
    bad = [np.array([0, np.nan], np.float32)] if kind == "sounds" else ["", " \n", "\ud800"]
    for value in bad:
        with pytest.raises(DataError):
            model.predict(value)
    with pytest.raises(UsageError):
        model.predict(3)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "ncnn"])
def test_engines(learnt, engine: str, run_cli) -> None:
    """Spectra are images of one channel to an engine; texts run on torch."""
    kind, source, run = learnt
    pytest.importorskip(engine)
    inputs = source / "low" if kind == "sounds" else source
    code, out, err = run_cli("predict", run, inputs, "--format", "jsonl", "--backend", engine)
    if kind == "texts":
        assert code == 2 and "runs on torch only" in err
        return
    torch = run_cli("predict", run, inputs, "--format", "jsonl", "--backend", "torch")[1]
    for one, other in zip(out.splitlines(), torch.splitlines(), strict=True):
        found, wanted = json.loads(one), json.loads(other)
        assert code == 0 and found["label"] == wanted["label"] and abs(found["score"] - wanted["score"]) < 1e-3


def test_serve_opens_them(learnt) -> None:
    """Warmed by a made input; a body is what a file holds."""
    pytest.importorskip("starlette")
    from resnetkit.serving.limits import limits_from
    from resnetkit.serving.opened import Opening, open_model

    kind, source, run = learnt
    opened = open_model(Opening("it", str(run), "torch", "cpu", False, limits_from({})))
    assert opened.warm() and len(json.dumps(opened.described(opened.warm()))) < 20_000 and not opened.explains
    body = (source / "low" / "0.wav").read_bytes() if kind == "sounds" else b"a lovely , charming story"
    assert opened.model.predict(body).label == ("low" if kind == "sounds" else "good")


def test_centred_spectra_are_exported(tmp_path: Path, run_cli) -> None:
    source = write_tones(tmp_path / "tones", 8)
    settings = flags("sounds", "train.epochs=1", "sound.centre=1")
    assert run_cli("train", source, *settings, "--out", "run", "--quiet")[0] == 0
    code, _, err = run_cli("export", "run", "--format", "onnx", "--quiet")
    assert code == 0, err
