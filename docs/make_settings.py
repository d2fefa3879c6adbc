"""Write docs/settings.md from the recipe's own docstrings: python docs/make_settings.py > docs/settings.md."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "resnetkit" / "recipe"


def sections() -> list[ast.ClassDef]:
    """The classes of the sections, in the order in which a recipe has them."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.glob("*.py"))]
    found = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    fields = (field for field in found["Recipe"].body if isinstance(field, ast.AnnAssign))
    return [found[ast.unparse(field.annotation)] for field in fields]


def page() -> str:
    """The settings as Markdown, section by section."""
    lines = [
        "# All settings",
        "",
        "`--set section.key=value`, or a recipe file of the same sections (`--recipe mine.toml`).",
        "",
    ]
    for node in sections():
        lines += [
            f"## {node.name.lower()}",
            "",
            ast.get_docstring(node) or "",
            "",
            "| setting | default | |",
            "|---|---|---|",
        ]
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                default = ast.unparse(field.value) if field.value else ""
                words = " ".join(str(text.value.value).split()).replace("|", "\\|")
                key = ast.unparse(field.target).rstrip("_")  # "from" is a word of Python's
                lines.append(f"| `{node.name.lower()}.{key}` | `{default}` | {words} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
