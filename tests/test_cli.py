"""The command line: frozen flags, one line for an error, exit codes, and what it costs to start."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from conftest import tiny
from resnetkit import api, cli
from resnetkit.errors import DataError

COMMON = {"--help"}
RESULT = {"--json", "--quiet", "--debug"}
FLAGS = {
    "train": {
        *("--model", "--weights", "--recipe", "--epochs", "--batch-size", "--time-limit"),
        *("--out", "--resume", "--overwrite", "--dry-run", "--task", "--seed", "--device", "--set"),
        *RESULT,
    },
    "eval": {"--split", "--min", "--min-low", "--max", "--out", "--backend", "--device", "--mirror", *RESULT},
    "compare": {"--split", "--out", "--backend", "--device", *RESULT},
    "explain": {"--out", "--label", "--evidence", "--nearest", "--overwrite", "--device", *RESULT},
    "check": {
        *("--labels", "--weights", "--write", "--out", "--overwrite", "--device", "--set"),
        *RESULT,
    },
    "embed": {"--out", "--stage", "--overwrite", "--device", *RESULT},
    "export": {"--format", "--data", "--int8", "--max-drop", "--out", "--push", "--overwrite", *RESULT},
    "serve": {
        *("--host", "--port", "--token", "--allow-host", "--root-path", "--proxy"),
        *("--backend", "--mirror", "--device", "--set"),
        *RESULT,
    },
    "bench": {"--backend", "--batch", "--seconds", "--device", *RESULT},
    "doctor": {"--device", *RESULT},
    "models": {"--size", "--svg", *RESULT},
    "predict": {
        "--draw",
        "--top",
        "--format",
        "--out",
        "--backend",
        "--device",
        "--mirror",
        "--coverage",
        "--resume",
        "--overwrite",
        "--set",
        *RESULT,
    },
    "demo": {"--folder", "--out", "--overwrite", "--seed", "--device", "--set", *RESULT},
}


def test_the_flags_are_frozen() -> None:
    command = typer.main.get_command(cli.app)
    found = {
        name: {option for parameter in sub.params for option in parameter.opts if option.startswith("--")} - COMMON
        for name, sub in command.commands.items()
    }
    assert found == FLAGS


def test_version_and_help(run_cli) -> None:
    code, out, _ = run_cli("--version")
    assert code == 0 and out.strip() == __import__("resnetkit").__version__
    for verb in FLAGS:
        code, out, _ = run_cli(verb, "--help")
        assert code == 0 and FLAGS[verb] <= set(out.replace(",", " ").split())


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["trian", "x"], "Did you mean 'train'"),
        (["train", "x", "--epoch", "3"], "--epochs"),
        (["train"], "no data given"),
        (["train", "x", "--epochs", "many"], "--epochs"),
        (["train", "x", "--epochs", "-1"], "train.epochs"),
        (["train", "x", "--set", "optim.lr=-1"], "optim.lr"),
        (["train", "x", "--set", "optim.lr=nan"], "optim.lr"),
        (["train", "x", "--set", "optim.lr=1e309"], "optim.lr"),
        (["train", "x", "--set", "train.batch_size=0"], "train.batch_size"),
        (["train", "x", "--set", "image.size=0"], "image.size"),
        (["train", "x", "--set", "train.epoch=3"], "the nearest is 'train.epochs'"),
        (["train", "x", "--set", "epochs"], "has no '='"),
        (["train", "x", "--time-limit", "soon"], "write 90s, 10m or 1.5h"),
        (["train", "x", "--recipe", "cake"], "there is no recipe 'cake'"),
        (["predict", "m", "x", "--format", "xml"], "table, jsonl, csv"),
        (["predict", "m", "x", "--set", "scale.engin=ray"], "the nearest is 'scale.engine'"),
        (["predict", "m", "x", "--set", "scale.engine=spark"], "scale.engine"),
        (["predict", "m", "x", "--set", "scale.workers=0"], "scale.workers"),
        (["predict", "m", "x", "--set", "optim.lr=1"], "there is no setting 'optim.lr'"),
        (["export", "m"], "--format"),
        (["export", "m", "--format", "pickle"], "torchvision, huggingface"),
        (["predict", "m", "x", "--top", "0"], "--top"),
        (["explain", "m", "x"], "--out"),
        (["embed", "m", "x"], "--out"),
        (["bench"], "MODEL"),
        (["serve"], "MODELS"),
        (["serve", "m", "--port", "70000"], "--port"),
        (["serve", "m", "--set", "serve.max_byte=1"], "the nearest is 'serve.max_bytes'"),
        (["serve", "m", "--set", "serve.max_queue=0"], "serve.max_queue"),
        (["serve", "a b=m"], "is no name for a model"),
        (["serve", "m", "--token", "short"], "8 to 512"),
        (["bench", "m", "--batch", "0"], "--batch"),
        (["bench", "m", "--seconds", "0"], "give more than 0"),
        (["bench", "m", "--seconds", "nan"], "give more than 0"),
        (["embed", "m", "x", "--out", "features.txt"], "features.npy or --out features.csv"),
        (["explain", "m", "x", "--out", "o", "--nearest", "-1"], "--nearest"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(run_cli, argv: list[str], text: str) -> None:
    """J1, J2, J3."""
    code, out, err = run_cli(*argv)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and text in err


def test_unknown_model_and_weights(photos: Path, run_cli) -> None:
    code, _, err = run_cli("train", photos, *tiny(without="model.variant"), "--model", "resnet35")
    assert code == 2 and "resnet34" in err
    code, _, err = run_cli("train", photos, *tiny(without="model.weights"), "--weights", "IMAGENET1K_V2")
    assert code == 2 and "IMAGENET1K_V1" in err
    assert not Path("runs").exists()


def test_errors_as_json(run_cli) -> None:
    code, out, err = run_cli("train", "nowhere", "--json")
    assert code == 3 and out == "" and json.loads(err)["code"] == 3 and json.loads(err)["path"] == "nowhere"


def test_a_bug_is_one_line_with_a_report_file(run_cli, monkeypatch, tmp_path: Path) -> None:
    """J8."""

    def broken(*args: object, **settings: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("resnetkit.verbs.eval.evaluate", broken)
    code, _, err = run_cli("eval", "a", "b")
    assert code == 1 and err.count("\n") == 1 and "ZeroDivisionError: oh" in err
    (report,) = tmp_path.glob("resnetkit-crash-*.txt")
    assert str(report) in err and "Traceback" in report.read_text()
    with pytest.raises(ZeroDivisionError):
        cli.main(["eval", "a", "b", "--debug"])


def test_ctrl_c_before_there_is_anything_to_save(run_cli, monkeypatch) -> None:
    """C10."""

    def stopped(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("resnetkit.verbs.eval.evaluate", stopped)
    code, _, err = run_cli("eval", "a", "b")
    assert code == 130 and err == "error: interrupted\n"


def test_debug_shows_the_traceback(run_cli) -> None:
    code, _, err = run_cli("train", "nowhere", "--debug")
    assert code == 3 and "Traceback" in err and DataError.__name__ in err


def seconds(*argv: str) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - started


def test_starting_is_cheap() -> None:
    """Medians of alternating processes; twice the promised times, since machines that run tests are busy."""
    python = [sys.executable, "-c"]
    bare, imported, top, verb = (
        statistics.median(times)
        for times in zip(
            *(
                (
                    seconds(*python, "pass"),
                    seconds(*python, "import resnetkit"),
                    seconds(sys.executable, "-m", "resnetkit", "--help"),
                    seconds(sys.executable, "-m", "resnetkit", "train", "--help"),
                )
                for _ in range(5)
            ),
            strict=True,
        )
    )
    assert imported - bare < 2 * 0.05
    assert top < 2 * 0.3
    assert verb < 2 * 0.6


def test_help_and_version_need_no_torch(tmp_path: Path) -> None:
    """J7: a torch that cannot be imported, and the other heavy ones with it."""
    for name in ("torch", "torchvision", "numpy", "sklearn", "matplotlib"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text("raise ImportError('broken')")
    for flags in (["--version"], ["--help"], ["train", "--help"], ["predict", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "resnetkit", *flags],
            env={"PYTHONPATH": str(tmp_path / "broken"), "PATH": ""},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_all_public_names_are_there_and_frozen() -> None:
    assert sorted(api.__all__) == sorted(
        [
            *("BasicBlock", "Bottleneck", "ResNet", "bench", "check", "compare", "conv1x1", "conv3x3"),
            *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
            *("resnet34d", "resnet50d"),
            *("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
            *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
            *(
                "demo",
                "describe_model",
                "doctor",
                "embed",
                "evaluate",
                "explain",
                "export",
                "grow",
                "list_models",
                "load",
                "predict",
                "save",
                "serve",
                "train",
            ),
        ]
    )
    assert {name for names in api.HOMES.values() for name in names} == set(api.__all__)
    for name in api.__all__:
        assert callable(getattr(api, name))
    with pytest.raises(AttributeError, match="no attribute 'resnet35'"):
        _ = api.resnet35
