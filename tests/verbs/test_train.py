"""train as a user runs it: what a run folder holds, what is refused, and that resuming is exact."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from conftest import COLOURS, NARROW, interrupted_at, tiny, write_classes
from resnetkit import api, run
from resnetkit import recipe as recipes
from resnetkit.runtime import choice
from resnetkit.training import features, trunk
from resnetkit.training import state as states
from resnetkit.training import train as loop
from resnetkit.verbs import fit, job

FILES = {
    "recipe.toml",
    "env.json",
    "results.csv",
    "metrics.json",
    "predictions.csv",
    "report.html",
    "log.jsonl",
    "model",
    "state",
}


def weights(run: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(run / "model" / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_the_run_folder_is_whole(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == FILES
    metrics = json.loads((trained / "metrics.json").read_text())
    assert set(metrics["accuracy"]) == {"value", "n", "low", "high", "method"}
    assert metrics["accuracy"]["n"] == 6 and {f"recall/{name}" for name in COLOURS} <= set(metrics)
    with (trained / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and sum(int(row["best"]) for row in rows) >= 1
    with (trained / "predictions.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"test"}
    settled = recipes.as_dict(recipes.read(trained / "recipe.toml"))
    open_ = {f"{section}.{key}" for section, each in settled.items() for key, value in each.items() if value == "auto"}
    others = {"data.task", "model.head", "model.head_width", "model.width", "train.device", "cache.folder"}
    assert {key for key in open_ - others if not key.startswith(("sound.", "text."))} == set()
    assert {path.name for path in (trained / "model").iterdir()} == {
        "model.safetensors",
        "calibration.safetensors",
        "model.json",
        "config.json",
        "README.md",
        "manifest.json",
    }


def test_it_learns_colours(tmp_path: Path, run_cli) -> None:
    """The main job end to end: three colours, all held-out images right."""
    write_classes(tmp_path / "photos", 30)
    code, out, _ = run_cli("train", "photos", *tiny("train.epochs=8", "augment.min_scale=0.9"), "--json", "--quiet")
    result = json.loads(out)
    assert code == 0 and result["folder"] == "runs/photos"
    assert result["metrics"]["accuracy"]["value"] >= 0.9


@pytest.mark.parametrize("setting", ["optim.ema_decay=0.9", "augment.mixup=0.2"])
def test_the_same_seed_gives_the_same_weights(photos: Path, run_cli, setting: str) -> None:
    for out in ("a", "b"):
        assert run_cli("train", photos, *tiny(setting), "--out", out)[0] == 0
    assert same(Path("a"), Path("b"))
    assert run_cli("train", photos, *tiny(setting), "--seed", "1", "--out", "c")[0] == 0
    assert not same(Path("a"), Path("c"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_saves(photos: Path, run_cli, monkeypatch, number: int) -> None:
    """C11: preemption and a closed terminal; the exit code is 128 + the signal."""
    interrupted_at(2, monkeypatch, number)
    code, _, err = run_cli("train", photos, *tiny(), "--out", "r")
    assert code == 128 + number and "saved at step 3" in err
    assert [folder.name for folder in Path("r/state").iterdir()] == ["00000003"]


def test_a_signal_while_processes_agree_is_not_lost(photos: Path, run_cli, monkeypatch) -> None:
    """Most come just then, where one process waits for another; the next step ends with it."""
    agreed = iter(range(99))

    def interrupt_and_agree(value, setup):
        if next(agreed) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return value

    monkeypatch.setattr(fit, "largest", interrupt_and_agree)
    code, _, err = run_cli("train", photos, *tiny(), "--out", "r")
    assert code == 128 + signal.SIGTERM and "saved at step 4" in err


@pytest.mark.parametrize("step", [0, 4, 8])
def test_ctrl_c_saves_and_resume_is_exact(photos: Path, run_cli, monkeypatch, step: int) -> None:
    """C10: the first SIGINT finishes the step, saves, says how to go on, and exits 130; in the usual memory format."""
    settings = tiny("train.memory_format=channels_last")
    assert run_cli("train", photos, *settings, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        interrupted_at(step, patch)
        code, _, err = run_cli("train", photos, *settings, "--out", "parts")
    assert code == 130 and "resnetkit train --resume --out parts" in err and not Path("parts/model").exists()
    code, _, err = run_cli("train", "--resume", "--out", "parts")
    assert code == 0 and f"resuming at step {step + 1} of" in err
    assert same(Path("whole"), Path("parts"))
    assert Path("whole/metrics.json").read_text() == Path("parts/metrics.json").read_text()


GROWING = ("model.variant=resnet32", "grow.from=resnet20", "grow.at=0.4", "optim.ema_decay=0.9")


@pytest.mark.parametrize("step", [1, 2, 3, 7])  # before it grows, when it is about to, and after
def test_a_network_that_grows_resumes_exactly(photos: Path, run_cli, monkeypatch, step: int) -> None:
    code, _, err = run_cli("train", photos, *tiny(*GROWING), "--out", "whole")
    assert code == 0 and "resnet20 grows into resnet32" in err
    assert api.load("whole").checkpoint.meta.variant == "resnet32"
    with monkeypatch.context() as patch:
        interrupted_at(step, patch)
        assert run_cli("train", photos, *tiny(*GROWING), "--out", "parts")[0] == 130
    assert run_cli("train", "--resume", "--out", "parts")[0] == 0
    assert same(Path("whole"), Path("parts"))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (("grow.from=resnet34", "model.variant=resnet18"), "cannot grow to"),
        (("grow.from=resnet18", "model.variant=resnet50"), "cannot grow into resnet50"),
        (("grow.from=resnet20", "model.variant=resnet34"), "of another width"),
        (("grow.from=plain18", "model.variant=plain34"), "only networks with identity shortcuts"),
        (("grow.from=resnet1", "model.variant=resnet34"), "there is no model"),
        (("grow.from=resnet18", "model.variant=resnet34", "grow.at=1"), "grow.at = 1"),
    ],
)
def test_what_cannot_grow_is_refused_before_any_work(photos: Path, run_cli, settings: tuple[str], what: str) -> None:
    code, _, err = run_cli("train", photos, *tiny(*settings), "--out", "r")
    assert code == 2 and what in err and err.splitlines()[-1].startswith("error: ") and not Path("r").exists()


def test_resume_with_other_workers_is_exact(photos: Path, run_cli, monkeypatch) -> None:
    """C24: in the middle of an epoch, where images are decoded anew."""
    anew = tiny("cache.gb=0", "train.workers=1")
    assert run_cli("train", photos, *anew, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        interrupted_at(4, patch)
        assert run_cli("train", photos, *anew, "--out", "parts")[0] == 130
    code, _, err = run_cli("train", "--resume", "--out", "parts", "--set", "train.workers=2", "--set", "cache.gb=1")
    assert code == 0, err
    assert same(Path("whole"), Path("parts"))


def test_a_record_that_cannot_be_written_ends_no_training(photos: Path, run_cli, monkeypatch, caplog) -> None:
    """C4, C27: a full disk under the log, and something in the way of results.csv."""
    with monkeypatch.context() as patch:
        interrupted_at(2, patch)
        assert run_cli("train", photos, *tiny(), "--out", "r")[0] == 130
    Path("r/log.jsonl").unlink(missing_ok=True)
    Path("r/log.jsonl").symlink_to("/dev/full")
    Path("r/results.csv").unlink(missing_ok=True)
    Path("r/results.csv").mkdir()
    code, _, err = run_cli("train", "--resume", "--out", "r")
    assert code == 0 and Path("r/model/model.json").exists(), err
    assert "log.jsonl" in caplog.text and "results.csv" in caplog.text
    assert caplog.text.count("no space left") == 1, "said once"


def test_too_little_space_is_said_before_the_first_step(photos: Path, run_cli, monkeypatch) -> None:
    """C7: with a state of a size that no disk has."""
    monkeypatch.setattr(states, "size", lambda state: 10**18)
    code, _, err = run_cli("train", photos, *tiny(), "--out", "r", "--quiet")
    assert code == 6 and "needed" in err and err.count("\n") == 1 and not Path("r").exists()


def test_sigkill_and_resume(photos: Path, run_cli) -> None:
    """A process that is killed in training goes on from its last saved state and ends with the same weights."""
    assert run_cli("train", photos, *tiny("train.epochs=8"), "--out", "whole")[0] == 0
    command = [sys.executable, "-m", "resnetkit", "train", str(photos), *tiny("train.epochs=8"), "--out", "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(Path("killed/state").glob("0*")):
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    code, _, err = run_cli("train", "--resume", "--out", "killed")
    assert code == 0 and "resuming at step" in err
    assert same(Path("whole"), Path("killed"))


def test_a_damaged_state_is_passed_over_loudly(photos: Path, run_cli, monkeypatch, caplog) -> None:
    """D3."""
    with monkeypatch.context() as patch:
        interrupted_at(7, patch)
        assert run_cli("train", photos, *tiny(), "--out", "r")[0] == 130
    newest = sorted(Path("r/state").iterdir())[-1]
    (newest / "network.safetensors").write_bytes(b"damaged")
    code, _, err = run_cli("train", "--resume", "--out", "r", "--quiet")
    assert code == 0 and "corrupt" in caplog.text and "going on from the state before it" in caplog.text


def test_no_state_that_can_be_used_is_an_error_and_nothing_is_deleted(photos: Path, run_cli, monkeypatch) -> None:
    """D4; starting anew would throw the states away."""
    with monkeypatch.context() as patch:
        interrupted_at(7, patch)
        assert run_cli("train", photos, *tiny(), "--out", "r")[0] == 130
    for state in Path("r/state").iterdir():
        (state / "network.safetensors").write_bytes(b"damaged")
    before = sorted(Path("r").rglob("*"))
    code, _, err = run_cli("train", "--resume", "--out", "r", "--quiet")
    assert code == 5 and "corrupt" in err and err.count("\n") == 1
    assert sorted(path for path in Path("r").rglob("*") if path.name != "env.json") == [
        path for path in before if path.name != "env.json"
    ]


def test_resume_with_other_data_is_refused(photos: Path, run_cli, monkeypatch) -> None:
    """C25: the same number of images, of which one is another."""
    with monkeypatch.context() as patch:
        interrupted_at(7, patch)
        assert run_cli("train", photos, *tiny(), "--out", "r")[0] == 130
    (photos / "red" / "0.png").rename(photos / "red" / "other.png")
    code, _, err = run_cli("train", "--resume", "--out", "r", "--quiet")
    assert code == 5 and "other data" in err, err


def test_a_second_run_in_the_same_folder_is_refused(photos: Path, run_cli) -> None:
    """C9; two real processes in test_run.py."""
    with run.locked(Path("r")):
        code, _, err = run_cli("train", photos, *tiny(), "--out", "r", "--quiet")
    assert code == 6 and "is being written by another process" in err and not Path("r").exists()
    assert run_cli("train", photos, *tiny("train.epochs=1"), "--out", "r", "--quiet")[0] == 0


def test_resume_refuses_what_would_not_be_the_same_run(photos: Path, run_cli, trained: Path) -> None:
    """C8, C17: another head, other settings, nothing to resume, a finished run."""
    code, _, err = run_cli("train", "--resume", "--out", trained)
    assert code == 2 and "is finished already" in err
    code, _, err = run_cli("train", photos, "--resume", "--out", "nothing")
    assert code == 2 and "holds no run to resume" in err
    shutil.copytree(trained, "copy")
    shutil.rmtree("copy/model")
    code, _, err = run_cli("train", "--resume", "--epochs", "99", "--out", "copy")
    assert code == 2 and "train.epochs is 3" in err


def test_an_existing_run_is_kept(photos: Path, run_cli) -> None:
    """C8, J3: refused without a flag, moved aside with --overwrite, and not both flags."""
    Path("r").mkdir()
    Path("r/mine.txt").write_text("mine")
    code, _, err = run_cli("train", photos, *tiny(), "--out", "r")
    assert code == 2 and "--resume to go on, --overwrite to move it aside" in err
    code, _, err = run_cli("train", photos, "--resume", "--overwrite", "--out", "r")
    assert code == 2 and "exclude each other" in err
    code, _, err = run_cli("train", photos, *tiny(), "--epochs", "9")
    assert code == 2 and "train.epochs is given twice" in err
    code, _, _ = run_cli("train", photos, *tiny(), "--out", "r", "--overwrite")
    assert code == 0 and Path("r.1/mine.txt").read_text() == "mine" and not Path("r/mine.txt").exists()


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("content", [b"", b"<html>no</html>"])
def test_an_unreadable_image_stops_before_the_first_step(tmp_path: Path, run_cli, split: str, content: bytes) -> None:
    """A13-A16: named, exit 3, and no run folder that would be in the way of the next try."""
    for name in ("train", "val", "test"):
        write_classes(tmp_path / "data" / name, 3, seed=100 * len(name))
    bad = tmp_path / "data" / split / "red" / "1.png"
    bad.write_bytes(content)
    code, _, err = run_cli("train", "data", *tiny())
    assert code == 3 and f"data/{split}/red/1.png" in err and not Path("runs").exists()


def test_nan_stops_with_exit_7_and_keeps_the_last_good_state(photos: Path, run_cli, monkeypatch) -> None:
    """C12: in the fourth epoch, so that states are there."""
    healthy = loop._loss

    def poisoned(learner, batch, plan):
        loss = healthy(learner, batch, plan)
        return loss * float("nan") if batch.step == 7 else loss

    monkeypatch.setattr(loop, "_loss", poisoned)
    code, _, err = run_cli("train", photos, *tiny(), "--out", "r")
    assert code == 7 and "step 7" in err and "the last good state is state/0" in err
    kept = sorted(Path("r/state").iterdir())[-1]
    assert int(kept.name) <= 7 and not Path("r/model").exists()
    state = safetensors.numpy.load_file(kept / "network.safetensors")
    assert all(np.isfinite(array).all() for array in state.values())


def test_a_training_that_went_wrong_says_so(photos: Path, run_cli) -> None:
    """C13: a loss that rises, and one answer to everything."""
    wrong = tiny("optim.lr=500", "optim.clip_norm=1.0", "train.epochs=4")
    code, _, err = run_cli("train", photos, *wrong, "--out", "r")
    assert code == 0 and "take care: " in err
    assert "Take care." in Path("r/report.html").read_text()


def test_fewer_images_than_a_batch_and_no_validation(tmp_path: Path, run_cli) -> None:
    """C16: two images a class; nothing is held out, which is said."""
    write_classes(tmp_path / "few", 2)
    code, out, err = run_cli("train", "few", *tiny("train.batch_size=64"))
    assert code == 0 and "nothing was scored" in err and Path("runs/few/model/model.json").exists()
    assert json.loads(Path("runs/few/metrics.json").read_text())["accuracy"]["value"] is None


def test_early_stop_and_time_limit(photos: Path, run_cli) -> None:
    assert run_cli("train", photos, *tiny("train.epochs=40", "train.patience=1", "optim.lr=1e-9"), "--out", "p")[0] == 0
    assert len(Path("p/results.csv").read_text().splitlines()) < 10
    started = time.monotonic()
    code, _, err = run_cli("train", photos, *tiny("train.epochs=5000"), "--time-limit", "8s", "--out", "t")
    assert code == 0 and "epochs fit the time limit" in err
    # the clock of the command line starts at import, which in this process was long ago
    assert time.monotonic() - started < 60


def test_dry_run_writes_nothing(photos: Path, run_cli) -> None:
    code, _, err = run_cli("train", photos, *tiny(), "--dry-run")
    assert code == 0 and 'variant = "resnet18"' in err and not Path("runs").exists()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `trained`, of a narrow network."""
    root = tmp_path_factory.mktemp("narrow")
    settings = dict(map(recipes.parse_setting, (*NARROW, "train.kernels=torch")))
    return api.train(write_classes(root / "photos"), out=root / "run", settings=settings, quiet=True).folder


def test_dry_run_of_a_fine_tuning_predicts_and_writes_nothing(photos: Path, run_cli, narrow: Path) -> None:
    weights = ("--weights", narrow / "model" / "model.safetensors")
    code, _, err = run_cli("train", photos, *tiny(without="model.weights"), *weights, "--time-limit", "9h", "--dry-run")
    assert code == 0 and "decoding 36 images: " in err and ", features " in err and "views = 0" in err
    assert not Path("runs").exists() and not Path("cache-home").exists()
    code, _, err = run_cli("train", photos, *staged(narrow), "--dry-run")
    assert code == 0 and "layer4 " in err.partition("plan: ")[2].partition("\n")[0]


def test_no_weights_offline_is_exit_8_with_both_ways_out(tmp_path: Path, run_cli) -> None:
    write_classes(tmp_path / "big", 3)
    code, _, err = run_cli(
        "train", "big", "--set", "image.size=64", "--weights", "IMAGENET1K_V1", "--model", "resnet18"
    )
    assert code == 8 and "--weights PATH" in err and "--weights none" in err and not Path("runs").exists()
    assert "decod" not in err, "said before any work"


def test_fine_tuning_from_a_file_with_a_frozen_trunk(photos: Path, run_cli, narrow: Path) -> None:
    """Frozen weights and statistics are those of the file, bit for bit, and the head is new."""
    source = narrow / "model" / "model.safetensors"
    two = write_classes(Path("two"), 8, classes={"red": COLOURS["red"], "blue": COLOURS["blue"]})
    code, _, err = run_cli(
        "train", two, *tiny("model.freeze=layer4", without="model.weights"), "--weights", source, "--out", "r"
    )
    assert code == 0
    before, after = weights(narrow), weights(Path("r"))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"fc.weight", "fc.bias"}


STAGED = ("finetune.views=2", "finetune.layer4_epochs=2", "train.epochs=2", "optim.ema_decay=0.9")


def staged(narrow: Path, *more: str) -> list[str | Path]:
    return [*tiny(*STAGED, *more, without="model.weights"), "--weights", narrow / "model" / "model.safetensors"]


def results(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "results.csv").read_text().splitlines()))


def test_fine_tuning_in_stages(photos: Path, run_cli, narrow: Path) -> None:
    """The head, layer4 on stored maps, then all; each row says of which stage it is, and the best of all is kept."""
    code, _, err = run_cli("train", photos, *staged(narrow), "--out", "r")
    assert code == 0 and "head on frozen features: " in err and "features: " in err
    rows = results(Path("r"))
    assert [row["stage"] for row in rows] == ["head", "layer4", "layer4", "all", "all"]
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3, 4]
    best = [int(row["epoch"]) for row in rows if row["best"] == "1"][-1]
    assert float(rows[best]["val_calibrated_loss"]) == min(float(row["val_calibrated_loss"]) for row in rows)
    assert all(float(row["val_calibrated_loss"]) <= float(row["val_loss"]) + 1e-9 for row in rows)
    assert len(list(Path("cache-home/features").iterdir())) == 1


@pytest.mark.parametrize("keep", [True, False])
def test_statistics_stay_those_of_the_weights_unless_told(photos: Path, run_cli, narrow: Path, keep: bool) -> None:
    """In every stage; "frozen" norms whose statistics still move are the classic fault."""
    flags = staged(narrow, f"finetune.keep_statistics={str(keep).lower()}", "finetune.statistics=kept")
    assert run_cli("train", photos, *flags, "--out", "r")[0] == 0
    before = weights(narrow)
    after = safetensors.numpy.load_file(states.saved_states(Path("r/state"))[-1] / "network.safetensors")
    names = [name for name in before if "running" in name]
    same = [np.array_equal(before[name], after[name]) for name in names]
    assert all(same) if keep else not any(same)


def test_a_head_alone_leaves_the_backbone_as_it_is(photos: Path, run_cli, narrow: Path) -> None:
    """Weights and statistics of BatchNorm, bit for bit; the folder loads as any other."""
    alone = staged(narrow, "train.epochs=0", "finetune.views=0", "finetune.layer4_epochs=0")
    code, _, err = run_cli("train", photos, *alone, "--set", "finetune.statistics=kept", "--out", "r")
    assert code == 0, err
    before, after = weights(narrow), weights(Path("r"))
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"fc.weight", "fc.bias"}
    assert [row["stage"] for row in results(Path("r"))] == ["head"]
    assert {path.name for path in Path("r").iterdir()} == FILES - {"state"}
    assert run_cli("predict", "r", photos / "red")[0] == 0


def test_statistics_move_towards_the_training_images_once(photos: Path, run_cli, narrow: Path) -> None:
    """Before features are computed, all of BatchNorm's and nothing else; all stages that follow leave them there."""
    alone = staged(narrow, "train.epochs=0", "finetune.views=0", "finetune.layer4_epochs=0")
    assert run_cli("train", photos, *alone, "--out", "alone")[0] == 0
    before, after = weights(narrow), weights(Path("alone"))
    statistics = {name for name in before if "running" in name}
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == statistics | {"fc.weight", "fc.bias"}
    assert run_cli("train", photos, *staged(narrow), "--out", "all")[0] == 0
    last = safetensors.numpy.load_file(states.saved_states(Path("all/state"))[-1] / "network.safetensors")
    assert all(np.array_equal(after[name], last[name]) for name in statistics)


def test_fine_tuning_with_features_of_all_stages(photos: Path, run_cli, narrow: Path) -> None:
    flags = [*tiny("model.pool=all", without="model.weights"), "--weights", narrow / "model" / "model.safetensors"]
    last = [*tiny(without="model.weights"), *flags[-2:]]
    assert run_cli("train", photos, *last, "--out", "last")[0] == 0  # its features are in the cache too
    code, _, err = run_cli("train", photos, *flags, "--out", "r")
    assert code == 0, err
    assert [row["stage"] for row in results(Path("r"))] == ["head", "all", "all", "all"]
    assert weights(Path("r"))["fc.weight"].shape == (3, 16 + 32 + 64 + 128)
    code, out, _ = run_cli("eval", "r", photos, "--json")
    assert code == 0 and json.loads(out)["metrics"] == json.loads(Path("r/metrics.json").read_text())
    code, _, err = run_cli("train", photos, *flags, "--set", "finetune.views=2", "--out", "other")
    assert code == 2 and "model.pool=all needs" in err
    code, _, err = run_cli("train", photos, *flags, "--time-limit", "9h", "--out", "limited")
    assert code == 0 and recipes.read(Path("limited/recipe.toml")).finetune.views == 0


def interrupting(stage: str, step: int):
    """The loop's forward pass, with Ctrl-C in one of them."""
    loss = loop._loss

    def learn_and_interrupt(learner, batch, plan):
        if batch.step == step and batch.images.shape[1] == (3 if stage == "all" else 64):
            os.kill(os.getpid(), signal.SIGINT)
        return loss(learner, batch, plan)

    return learn_and_interrupt


@pytest.mark.parametrize(("stage", "step"), [("layer4", 0), ("layer4", 5), ("all", 0), ("all", 4)])
def test_stages_resume_exactly(photos: Path, run_cli, monkeypatch, narrow: Path, stage: str, step: int) -> None:
    """An interruption in any stage, with features in a cache that is emptied meanwhile."""
    assert run_cli("train", photos, *staged(narrow), "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_loss", interrupting(stage, step))
        assert run_cli("train", photos, *staged(narrow), "--out", "parts")[0] == 130
    shutil.rmtree("cache-home/features")
    code, _, err = run_cli("train", "--resume", "--out", "parts")
    assert code == 0 and f"resuming at step {step + 1} of" in err
    assert same(Path("whole"), Path("parts"))
    whole, parts = ([{**row, "seconds": ""} for row in results(Path(name))] for name in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_stages_with_an_engine_resume_exactly(photos: Path, run_cli, monkeypatch, narrow: Path, engine: str) -> None:
    """The features are made anew, by the engine that was chosen then, though another one would be now."""
    pytest.importorskip(engine, reason=f"needs {engine}")
    with monkeypatch.context() as patch:
        patch.setattr(choice, "installed", lambda: (engine,))
        patch.setattr(choice, "_speeds", lambda running, *_: {name: float(len(name)) for name in running})
        patch.setattr(trunk, "WORTH", 0.0)
        code, _, err = run_cli("train", photos, *staged(narrow), "--out", "whole")
        assert code == 0 and f"features are made by {engine} (" in err and f"made by {engine} " in err
        stored = np.load(next(Path("cache-home/features").rglob("*.npy")))
        patch.setattr(loop, "_loss", interrupting("layer4", 5))
        code, _, err = run_cli("train", photos, *staged(narrow), "--out", "parts")
        assert code == 130 and f"{engine} (as measured before)" in err
    shutil.rmtree("cache-home")
    code, _, err = run_cli("train", "--resume", "--out", "parts")
    assert code == 0 and f"made by {engine} " in err, err
    assert recipes.read(Path("parts/recipe.toml")).finetune.engine == engine
    assert np.array_equal(stored, np.load(next(Path("cache-home/features").rglob("*.npy"))))
    assert same(Path("whole"), Path("parts"))


@pytest.mark.parametrize("before", [0, 1])
def test_ctrl_c_while_features_are_computed(photos: Path, run_cli, monkeypatch, narrow: Path, before: int) -> None:
    """Or while the statistics are renewed: what is there is kept, and --resume goes on."""
    images, asked = features.training_images, []

    def interrupted(loader):
        def view(number, rows):
            asked.append(number)
            if len(asked) > before:
                os.kill(os.getpid(), signal.SIGINT)
            return images(loader)(number, rows)

        return view

    with monkeypatch.context() as patch:
        patch.setattr(features, "training_images", interrupted)
        code, _, err = run_cli("train", photos, *staged(narrow), "--out", "r")
    assert code == 130 and "resnetkit train --resume --out r" in err and not Path("r/model").exists()
    assert bool(list(Path("cache-home").rglob("features/**/*.npy"))) == bool(before)
    assert run_cli("train", "--resume", "--out", "r")[0] == 0


def test_a_time_limit_plans_the_stages_and_writes_them_down(photos: Path, run_cli, narrow: Path, monkeypatch) -> None:
    limited = [*tiny(without="model.weights"), "--weights", narrow / "model" / "model.safetensors"]
    code, _, err = run_cli("train", photos, *limited, "--time-limit", "9h", "--out", "r")
    assert code == 0 and "plan: statistics " in err and ", features " in err
    chosen = recipes.read(Path("r/recipe.toml"))
    assert chosen.train.epochs == 3 and chosen.finetune.views == 0 and chosen.finetune.layer4_epochs == 0
    monkeypatch.setattr(job, "measure_costs", lambda *_: pytest.fail("there is no time for a step"))
    code, _, err = run_cli("train", photos, *limited, "--time-limit", "1s", "--out", "late")
    assert code == 0 and "more than the time limit" in err and results(Path("late"))[-1]["stage"] == "head"


@pytest.mark.parametrize("settings", [("data.val=0",), ("cache.folder=none",), ("cache.gb=0",), ("cache.folder=here",)])
def test_stages_without_validation_or_cache(photos: Path, run_cli, narrow: Path, settings: tuple[str]) -> None:
    """Nothing chooses the best: the last epoch is kept; features stay in memory, or lie where one said."""
    code, _, err = run_cli("train", photos, *staged(narrow, *settings), "--out", "r")
    assert code == 0, err
    assert [row["stage"] for row in results(Path("r"))] == ["head", "layer4", "layer4", "all", "all"]
    assert Path("here/features").exists() == (settings == ("cache.folder=here",))


def test_a_time_limit_with_stages_that_are_given(photos: Path, run_cli, narrow: Path) -> None:
    given = staged(narrow, "train.epochs=0", "finetune.layer4_epochs=auto")
    code, _, err = run_cli("train", photos, *given, "--time-limit", "9h", "--out", "r")
    assert code == 0, err
    assert [row["stage"] for row in results(Path("r"))] == ["head"] + 4 * ["layer4"]


def test_no_epochs_and_no_weights_leave_nothing_to_learn(photos: Path, run_cli) -> None:
    code, _, err = run_cli("train", photos, *tiny("train.epochs=0"), "--out", "r")
    assert code == 2 and "leaves nothing to learn" in err and not Path("r").exists()


def test_api_and_command_line_are_one(photos: Path, run_cli) -> None:
    assert run_cli("train", photos, *tiny(without="train.epochs"), "--epochs", "1", "--out", "a")[0] == 0
    settings = {**dict(map(recipes.parse_setting, NARROW)), "train.epochs": 1}
    run = api.train(photos, epochs=1, settings=settings, out="b", quiet=True)
    assert same(Path("a"), run.folder) and run.metrics["accuracy"]["n"] == 6
