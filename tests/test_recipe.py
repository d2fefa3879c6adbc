"""Settings are read, laid over each other, and refused with the nearest way out."""

import math
from dataclasses import asdict
from importlib import resources

import pytest

from resnetkit import recipe
from resnetkit.errors import UsageError
from resnetkit.recipe import Recipe, as_toml, keys, named_recipes, parse_duration, parse_setting, read, replace


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refused(call, *parts):
    with pytest.raises(UsageError) as caught:
        call()
    line = str(caught.value)
    assert all(part in line for part in parts), line
    assert caught.value.exit_code == 2 and "\n" not in line


UNKNOWN = [
    ("train.epoch", "train.epochs"),
    ("epochs", "train.epochs"),
    ("model.batch_size", "train.batch_size"),
    ("train", "train."),
    ("agument.flip", "augment.flip"),
    ("train.epochs.more", "train.epochs"),
    ("zzz", "see docs"),
]


@pytest.mark.parametrize(("key", "near"), UNKNOWN)
def test_an_unknown_key_names_the_nearest(tmp_path, key, near, run_cli):
    refused(lambda: read("", {key: 1}), f"there is no setting {key!r}", near)
    refused(lambda: replace(Recipe(), {key: 1}), f"there is no setting {key!r}", near)
    code, out, err = run_cli("train", tmp_path, "--set", f"{key}=1")
    assert (code, out) == (2, "") and near in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[train]\nepoch = 3", ["no setting 'train.epoch'", "'train.epochs'"]),
        ("epochs = 3", ["no setting 'epochs'", "'train.epochs'"]),
        ("train = 3", ["no setting 'train'"]),
        ("[unknown]", ["unknown"]),
        ("[train]\nepochs = 3\nepochs = 4\n", ["is not valid TOML", "line 3"]),
        ("[train]\n[train]", ["is not valid TOML", "line 2"]),
        ("[train", ["is not valid TOML"]),
        ("train:\n  epochs: 3", ["is not valid TOML"]),
        ("x = " + "[" * 100_000, ["is not valid TOML"]),
        ("[train]\nepochs = 'many'", ["train.epochs = 'many'"]),
        ("[train]\nepochs = 1e309", ["train.epochs = inf"]),
        ("[optim]\nlr = nan", ["optim.lr = nan"]),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, text, parts):
    path = written(tmp_path / "mine.toml", text)
    refused(lambda: read(path), str(path), *parts)


def test_files_and_names_that_are_not_there(tmp_path):
    refused(lambda: read(tmp_path / "gone.toml"), "gone.toml", "no such file")
    refused(lambda: read(tmp_path), "there is no recipe", "digits")
    refused(lambda: read("digitz"), "there is no recipe 'digitz'", "digits")
    (tmp_path / "latin.toml").write_bytes("[data]\nsource = 'grün'".encode("latin-1"))
    refused(lambda: read(tmp_path / "latin.toml"), "is not valid TOML")


IMPOSSIBLE = [math.nan, math.inf, -math.inf, -1, "many", None, [], {}, True]
NUMBERS = ["train.epochs", "train.batch_size", "train.seed", "train.time_limit", "optim.lr", "optim.weight_decay"]
NUMBERS += ["image.size", "image.crop_ratio", "data.val", "data.test", "augment.color", "augment.min_scale"]
WRONG = [(key, value) for key in NUMBERS for value in IMPOSSIBLE]
WRONG += [(key, 0) for key in ("train.batch_size", "optim.lr", "image.size", "augment.min_scale")]
WRONG += [("data.val", 1), ("train.batch_size", 1), ("train.epochs", 2.5), ("train.epochs", 10**30), ("image.size", 7)]
WRONG += [("optim.optimizer", "adam"), ("image.channels", 17), ("image.channels", True), ("augment.flip", 7)]
WRONG += [("data.source", 3), ("model.freeze", "layer9"), ("optim.schedule", ""), ("augment.max_aspect", 0.5)]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=str)
def test_values_that_cannot_be(key, value):
    refused(lambda: read("", {key: value}), key)
    refused(lambda: replace(Recipe(), {key: value}), key)


@pytest.mark.parametrize("flags", [["--epochs", "-1"], ["--batch-size", "-1"], ["--set", "optim.lr=1e309"]])
@pytest.mark.parametrize("more", [[], ["--set", "image.size=nan"]])
def test_values_that_cannot_be_on_the_command_line(tmp_path, run_cli, flags, more):
    code, out, err = run_cli("train", tmp_path, *flags, *more)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1


def test_shares_that_leave_nothing_to_train_on():
    refused(lambda: read("", {"data.val": 0.6, "data.test": 0.4}), "leave nothing to train on")


def test_flags_go_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = written(tmp_path / "mine.toml", "[train]\nepochs = 3\nseed = 7\n")
    found = read(path, {"train.epochs": 5, "optim.lr": 0.5})
    assert (found.train.epochs, found.train.seed, found.optim.lr) == (5, 7, 0.5)
    assert found.train.batch_size == Recipe().train.batch_size
    assert read("") == read("", {}) == Recipe()
    named = read("digits", {"train.epochs": 1})
    assert named.train.epochs == 1 and named.image.size == read("digits").image.size == 32
    assert read(str(path)) == read(path)


def test_values_as_text_are_read_as_numbers():
    assert read("", {"train.epochs": "5", "optim.lr": "1e-2", "augment.flip": "false"}) == read(
        "", {"train.epochs": 5, "optim.lr": 0.01, "augment.flip": False}
    )
    assert read("", {"image.size": "auto", "optim.lr": "auto"}) == Recipe()


@pytest.mark.parametrize("changes", [{}, {"data.source": "a \"b\" \\ 'c'\n🐈", "optim.lr": 1e-300, "image.size": 64}])
def test_toml_round_trip(tmp_path, changes):
    first = read("", changes)
    assert read(written(tmp_path / "r.toml", as_toml(first))) == first
    assert read(written(tmp_path / "s.toml", as_toml(read("digits")))) == read("digits")


def test_a_replaced_recipe_is_another_value():
    first = Recipe()
    assert replace(first, {"train.epochs": 3}).train.epochs == 3 and first == Recipe()
    assert replace(first, {}) == first


def test_keys_are_all_settings():
    fields = [f"{section}.{name}" for section, values in asdict(Recipe()).items() for name in values]
    assert keys() == [name.rstrip("_") for name in fields]
    assert all("\n" not in key for key in keys())


@pytest.mark.parametrize("name", named_recipes())
def test_recipes_that_come_with_the_package(name):
    text = (resources.files("resnetkit") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith("# resnetkit ")  # its command
    assert text.splitlines()[1].startswith("# ")  # hardware, time and score
    assert read(name) != Recipe()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2H ", 7200), (30, 30), (0.5, 0.5), ("1e2", 100)],
)
def test_parse_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "0", "-5m", "nan", "inf", "1e309", "1d", "ten", "5 minutes", 0, -1, "1:30"])
def test_durations_that_are_none(text):
    refused(lambda: parse_duration(text), "is not a duration", "90s, 10m or 1.5h")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=5", ("train.epochs", 5)),
        ("optim.lr = 1e-3", ("optim.lr", 0.001)),
        ("augment.flip=false", ("augment.flip", False)),
        ("model.variant=resnet18", ("model.variant", "resnet18")),
        ("model.variant='resnet18'", ("model.variant", "resnet18")),
        ("data.source=a=b", ("data.source", "a=b")),
        ("data.source=", ("data.source", "")),
        ("optim.lr=auto", ("optim.lr", "auto")),
        ("x.y=" + "[" * 100_000, ("x.y", "[" * 100_000)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_parse_setting(text, expected):
    assert parse_setting(text) == expected


def test_a_setting_without_a_value():
    refused(lambda: parse_setting("train.epochs"), "has no '='", "--set section.key=value")


def test_a_recipe_is_frozen():
    with pytest.raises(AttributeError):
        Recipe().train.epochs = 3
    assert recipe.Recipe() == Recipe()


def test_a_key_that_is_a_word_of_python(tmp_path, run_cli):
    """In files, --set and messages it is grow.from; only the field has another name."""
    path = written(tmp_path / "a.toml", "[grow]\nfrom = 'resnet18'\n")
    assert read(path).grow.from_ == "resnet18" and "grow.from" in keys()
    assert 'from = "resnet18"' in as_toml(read(path)) and replace(read(path), {"grow.from": ""}).grow.from_ == ""
    refused(lambda: read("", {"grow.from_": "resnet18"}), "no setting 'grow.from_'", "'grow.from'")
    refused(lambda: read("", {"grow.from": 3}), "grow.from = 3")
