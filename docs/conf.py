"""Sphinx: `sphinx-build -W --keep-going docs build/docs`; options and API come from the code."""

from __future__ import annotations

import importlib
import sys
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import nbs  # noqa: E402
from agents.load import BUILT_IN  # noqa: E402
from nbs_env.config import PRESETS, Config  # noqa: E402
from nbs_env.detect import config as detect  # noqa: E402
from nbs_env.detect.config import DetectorConfig  # noqa: E402

project = "Neural batch sampling"
author = copyright = "the neural-batch-sampling authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
exclude_patterns = ["build"]
default_role = "code"
highlight_language = "none"
html_copy_source = False
myst_heading_anchors = 3
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give shapes and units, which say more
linkcheck_anchors = False


def plain(value: Any) -> str:
    """A default as one types it."""
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)


def default(field: Field[Any]) -> Any:
    """A field's default; a dash where one has to be given."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return "required" if field.default is MISSING else field.default


def meaning(kind: type, name: str) -> str:
    """The docstring under a field, which an ancestor may have."""
    for each in kind.__mro__:
        docs = ModuleAnalyzer.for_module(each.__module__).find_attr_docs() if is_dataclass(each) else {}
        if (each.__name__, name) in docs:
            return " ".join(docs[each.__name__, name]).replace("|", r"\|").replace("<", r"\<").strip()
    return ""


def options(kind: type, prefix: str = "--", made: Any = None) -> list[str]:
    """Rows of a table: every option that a dataclass becomes, nested ones (`made`) with a dot."""
    rows = []
    for field in fields(kind):
        name = prefix + field.name.replace("_", "-")
        value = default(field) if made is None else getattr(made, field.name)
        if is_dataclass(value):
            rows += options(type(value), f"{name}.", value)
            continue
        values = [plain(value)]
        if made is None and kind in (Config, DetectorConfig):
            presets = PRESETS if kind is Config else detect.PRESETS
            values = [plain(getattr(preset, field.name)) for preset in presets.values()]
        rows.append(f"| `{name}` | {' | '.join(values)} | {meaning(kind, field.name)} |")
    return rows


def write_options(app: Any) -> None:
    """`reference/options.md`: the options of every command, from its dataclasses."""
    lines = ["# Options", "", "From the code, as `nbs COMMAND --help` is. To complete them in a shell:", ""]
    lines += ["```", "nbs completion bash > ~/.local/share/bash-completion/completions/nbs", "```", ""]
    for name, module in nbs.commands().items():
        long = f"python -m {module.removesuffix('.__main__')}" if name != "train" else "python train.py"
        lines += [f"## nbs {name}", "", f"Also `{long}`.", ""]
        kinds = nbs.settings(module)
        if name == "train":
            built_in = {agent: target.split(":") for agent, target in BUILT_IN.items()}
            classes = {a: getattr(importlib.import_module(m), c) for a, (m, c) in built_in.items()}
            kinds = kinds[:4] + [c.Options for c in classes.values() if hasattr(c, "Options")]
            titles = ["The run", "The player", "The detector, by preset", "The game, by preset"]
            titles += [f"Options of agent {a}" for a, c in classes.items() if hasattr(c, "Options")]
        for number, kind in enumerate(kinds):
            lines += [f"### {titles[number]}", ""] if name == "train" else []
            heads = list(PRESETS) if kind in (Config, DetectorConfig) else ["default"]
            lines += [f"| option | {' | '.join(heads)} | |", "| --- " * (len(heads) + 2) + "|"]
            lines += [*options(kind), ""]
    file = Path(app.srcdir) / "reference" / "options.md"
    text = "\n".join(lines)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def headings(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """`## Rewards` in a docstring becomes a line in bold: reStructuredText has no such headings."""
    lines[:] = [f"**{line[3:]}**\n" if line.startswith("## ") else line for line in lines]
    spaced = []
    for line in lines:
        spaced += line.split("\n")
    lines[:] = spaced


def moved(app: Any, path: Path, name: str, content: list[str]) -> None:
    """Links of pages that lie above docs/ to each other."""
    for page in ("CONTRIBUTING.md", "CHANGELOG.md"):
        content[0] = content[0].replace(f"]({page})", f"]({page.lower()})")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_options)
    app.connect("include-read", moved)
    app.connect("autodoc-process-docstring", headings)
