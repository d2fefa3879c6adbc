"""The house rules of DESIGN: which way imports run, how large things are, and what is public."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "resnetkit"
FLOORS = (
    ("errors", "_version"),
    ("files", "settings"),
    ("ops", "recipe", "run", "kernels"),
    ("nn", "data", "checkpoint"),
    ("weights", "tasks"),
    ("models",),
    ("runtime",),
    ("training",),
    ("trust",),
    ("serving",),
    ("verbs",),
    ("api",),
    ("cli",),
    ("__main__", ""),
)
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}
NESTS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
Function = ast.FunctionDef | ast.AsyncFunctionDef

FILES = {
    path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", "."): path
    for path in PACKAGE.rglob("*.py")
}
MODULES = {name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def imports(module: str) -> Iterator[str]:
    """Modules of the package that a module imports, anywhere in the file; all imports here are absolute."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in MODULES or node.module in MODULES:
                    yield full if full in MODULES else node.module


def functions() -> Iterator[tuple[str, Function]]:
    for module, tree in MODULES.items():
        yield from ((module, node) for node in ast.walk(tree) if isinstance(node, Function))


def length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def nesting(node: ast.AST, depth: int = 0) -> int:
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, nesting(child, depth + (isinstance(child, NESTS) and not is_elif)))
    return deepest


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_down(module: str) -> None:
    assert room(module) in FLOOR, f"{module} stands on no floor"
    for target in imports(module):
        if target != "resnetkit" and room(target) != room(module):
            assert FLOOR[room(target)] < FLOOR[room(module)], f"{module} imports {target}"


def test_no_circles() -> None:
    graph = {module: set(imports(module)) - {module, "resnetkit"} for module in MODULES}
    while leaves := [module for module, targets in graph.items() if not targets & set(graph)]:
        for module in leaves:
            del graph[module]
    assert not graph, f"import circle among {sorted(graph)}"


def test_functions_are_short() -> None:
    lengths = sorted(length(node) for _, node in functions())
    assert statistics.median(lengths) <= 10
    assert lengths[int(0.9 * len(lengths))] <= 30
    assert {f"{m}.{f.name}" for m, f in functions() if length(f) > 60} == set()


def test_functions_are_flat_and_narrow() -> None:
    assert {f"{m}.{f.name}" for m, f in functions() if nesting(f) > 3} == set()
    wide = set()
    for module, node in functions():
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        free = room(module) in ("cli", "verbs") or (room(module) == "nn" and node.name == "__init__")
        if len([name for name in names if name not in ("self", "cls")]) > 7 and not free:
            wide.add(f"{module}.{node.name}")
    assert wide == set()


def test_files_are_short() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: n for name, n in lines.items() if n > 400} == {}


def test_no_open_keywords_and_no_bare_except() -> None:
    for module, node in functions():
        loose = node.args.kwarg and not isinstance(node.args.kwarg.annotation, ast.Subscript)
        assert not (loose and not node.name.startswith("_")), f"{module}.{node.name} takes **kwargs"
    for module, tree in MODULES.items():
        for handler in (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)):
            assert handler.type is not None, f"{module}:{handler.lineno} bare except"


def test_only_some_rooms_may_import_torch() -> None:
    """What predict needs must work without torch; the torch backend imports it inside a function."""
    free = {"nn", "weights", "models", "training", "verbs"}
    for module, tree in MODULES.items():
        tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {a.name if isinstance(n, ast.Import) else str(n.module) for n in tops for a in n.names}
        heavy = {name for name in names if name.split(".")[0] in ("torch", "torchvision")}
        assert not heavy or room(module) in free or module in ("resnetkit.runtime.save", "resnetkit.trust.explain"), (
            f"{module} imports {heavy}"
        )


def test_torchvision_is_imported_where_it_is_needed() -> None:
    """It takes a second, so no module does it when it is imported, except some that are imported late themselves."""
    late = {
        f"resnetkit.{name}"
        for name in ("training.trivial", "training.scenes", "nn.detection", "nn.segmentation", "nn.finder")
    }
    for module in MODULES.keys() - late:
        tops = [node for node in MODULES[module].body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {a.name if isinstance(n, ast.Import) else str(n.module) for n in tops for a in n.names}
        names |= {f"{n.module}.{a.name}" for n in tops if isinstance(n, ast.ImportFrom) for a in n.names}
        assert not any(name.split(".")[0] == "torchvision" or name in late for name in names), module


def test_tests_mirror_the_source() -> None:
    """Every test file is named after what it tests."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        inside = path.relative_to(ROOT / "tests")
        name = inside.with_name(inside.name.removeprefix("test_"))
        known = {
            "test_house.py",
            "test_package.py",
            "test_readme.py",
            "test_faults.py",
            "test_odd_data.py",
            "test_photos.py",
            "test_processes.py",
            "test_senses.py",
            "test_surroundings.py",
            "test_trouble.py",
            "test_windows.py",
        }
        mirrored = PACKAGE / name
        assert path.name in known or mirrored.exists() or mirrored.with_suffix("").is_dir(), f"{path} mirrors nothing"
