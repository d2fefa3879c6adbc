"""The documentation is run: every command of the README and the task pages, and the README's Python, on made data."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from conftest import picture, write_labels, write_scenes
from resnetkit import cli
from senses import write_reviews, write_tones

ROOT = Path(__file__).parent.parent


def console(page: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def python(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture
def there(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ with cats and dogs, as the README shows them, several/ with a labels.csv, recordings/ and reviews.csv.

    One cache for all pages.
    """
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-all-pages"))
    for name, colour in (("cat", (230, 140, 40)), ("dog", (60, 80, 200))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            picture(colour, i).save(tmp_path / "photos" / name / f"{i}.png")
    write_labels(tmp_path / "several", 48)
    write_tones(tmp_path / "recordings", 12)
    pairs = "".join(f"low/{i}.wav,{('low', 'high')[i % 2]}/{i + 1}.wav,{1 - i % 2}\n" for i in range(10))
    (tmp_path / "recordings" / "pairs.csv").write_text(f"a,b,same\n{pairs}")
    write_reviews(tmp_path / "reviews.csv", 120)
    write_scenes(tmp_path / "street")
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/classify.md",
        "docs/multilabel.md",
        "docs/sounds.md",
        "docs/texts.md",
        "docs/scenes.md",
        "docs/export.md",
        "docs/trust.md",
        "docs/resnet.md",
        "docs/run.md",
    ],
)
def test_every_command_runs(page: str, there: Path, run_cli: Callable[..., tuple[int, str, str]]) -> None:
    commands = console(page)
    assert len(commands) >= 4
    for command in commands:
        may_fail, bare = command.endswith(" || true"), command.removesuffix(" || true")
        if bare.startswith("resnetkit ") and "|" not in bare:
            code, told = run_cli(*shlex.split(bare)[1:])[::2]  # in this process: starting one takes seconds
        else:
            code, told = _in_shell(bare, there)
        assert code == 0 or (may_fail and code in (3, 4)), f"{command}\n{told}"
    if page == "README.md":
        exec(compile(python(page), page, "exec"), {})


def _in_shell(command: str, there: Path) -> tuple[int, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=there, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("page", ["README", "docs/resnet"])
def test_the_chinese_pages_have_the_same_code(page: str) -> None:
    english, chinese = ((ROOT / f"{page}{end}").read_text(encoding="utf-8") for end in (".md", ".zh.md"))
    blocks = [re.findall(r"```.*?```", text, re.DOTALL) for text in (english, chinese)]
    assert blocks[0] == blocks[1] and blocks[0]
    rows = [re.findall(r"^\|[ \d|.,]+\|$", text, re.MULTILINE) for text in (english, chinese)]
    assert rows[0] == rows[1], "the numbers in their tables"


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "README.zh.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_settings_page_is_that_of_the_code() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_settings.py"], capture_output=True, text=True, check=True
    )
    assert made.stdout == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    from resnetkit.recipe import keys

    assert re.findall(r"^\| `([a-z0-9_.]+)`", made.stdout, re.MULTILINE) == keys()


def test_the_commands_of_the_results_parse() -> None:
    """They take hours, or need data that is not here; that they are commands at all is checked."""
    verbs = typer.main.get_command(cli.app).commands
    found = re.findall(
        rf"`resnetkit ((?:{'|'.join(verbs)})\b[^`]*)`", (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    )
    assert len(found) >= 3
    for command in found:
        verb, *arguments = shlex.split(command)
        if "--help" not in arguments:
            verbs[verb].make_context(verb, arguments)


def test_the_drawing_of_the_units_is_that_of_the_code():
    picture = runpy.run_path(str(ROOT / "docs" / "paper" / "units.py"))["picture"]()
    assert picture == (ROOT / "docs" / "paper" / "units.svg").read_text(encoding="utf-8")
