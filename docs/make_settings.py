"""Write docs/settings.md from the settings' own docstrings: python docs/make_settings.py > docs/settings.md."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "resnetkit" / "settings.py"


def page() -> str:
    """The settings as Markdown, section by section."""
    lines = [
        "# All settings",
        "",
        "`--set section.key=value`, or a recipe file of the same sections (`--recipe mine.toml`).",
        "",
    ]
    for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef) or node.name == "Recipe":
            continue
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
