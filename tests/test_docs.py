"""What the pages and docstrings say: their code runs, their links lead somewhere."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import agents.base
import nbs
import nbs_env.data.dataset
import nbs_env.env
from nbs_env.config import PRESETS, Config
from nbs_env.data import load
from nbs_env.detect import config as detect
from nbs_env.detect import detector
from nbs_env.detect.segmenter import Segmenter

ROOT = Path(nbs.__file__).parent
PAGES = sorted([*ROOT.glob("*.md"), *(p for p in ROOT.glob("docs/**/*.md") if p.name != "options.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
MADE = ("docs/reference/options.md",)
"""What is made when the site is built."""


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the code blocks of a page in docs/."""
    return BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"))


def run(line: str) -> None:
    """A command of a page, in this process."""
    name, *words = shlex.split(line, comments=True)
    assert name == "nbs", line
    nbs.main(words)


@pytest.mark.parametrize(
    "pages",
    [
        ["tutorials/own-images", "howto/onnx", "howto/thresholds"],
        ["tutorials/agent"],
        ["tutorials/reward"],
        ["tutorials/ray"],
    ],
    ids=lambda pages: pages[0],
)
def test_pages_run(
    pages: list[str],
    config: Config,
    taught: detect.DetectorConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks from top to bottom in an empty folder; `# file.py` as a first line names the file they are.

    The settings are those of the other tests. What imports Ray is run where that is installed.
    """
    monkeypatch.setitem(load.__kwdefaults__, "count", 8)  # built-in images
    monkeypatch.setitem(PRESETS, "quick", replace(config, updates=4))
    monkeypatch.setitem(detect.PRESETS, "quick", replace(taught, segmenter_steps=2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    values: dict[str, Any] = {}
    for page in pages:
        done = 0
        for language, code in blocks(page):
            file = re.match(r"# (\w+\.py)\n", code)
            if language == "sh":
                for line in filter(None, code.splitlines()):
                    run(line)
            elif file:
                Path(file[1]).write_text(code, encoding="utf-8")
            elif language == "python":
                program = compile(code, page, "exec")
                if "import tune" not in code or importlib.util.find_spec("ray"):
                    exec(program, values)
            done += language in ("sh", "python")
        assert done
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]


@pytest.mark.parametrize("module", [agents.base, nbs_env.data.dataset, detector, nbs_env.env])
def test_examples_in_docstrings(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    weights = Segmenter().state_dict()
    untaught = detector.Detector([], [], 128, "float32", torch.device("cpu"), segmenter=weights)
    untaught.save(tmp_path / "runs" / "mine" / "detector.pt")
    result = doctest.testmod(module)
    assert result.attempted > 2
    assert result.failed == 0


def test_tiles_cover_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles of the page on large images, put back at the places that their names say, are the image."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # the page lifts it
    monkeypatch.chdir(tmp_path)
    whole = np.random.default_rng(0).integers(256, size=(700, 1100, 3), dtype=np.uint8)
    for folder, picture in (("images", whole), ("masks", whole[..., 0])):
        (tmp_path / "large" / folder).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "large" / folder / "a.png")
    for code in (code for language, code in blocks("howto/large-images") if language == "python"):
        exec(code, {})
    together = np.zeros_like(whole)
    for file in Path("my_images/images").iterdir():
        _, top, left = file.stem.split("_")
        together[int(top) : int(top) + 512, int(left) : int(left) + 512] = np.asarray(Image.open(file))
        assert (Path("my_images/masks") / file.name).is_file()
    np.testing.assert_array_equal(together, whole)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links with their anchors, pictures, and files that are named in backticks."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    assert not re.search(r"^\s*%", text, re.M), (
        f"{page.name}: MyST takes a line that begins with % for a comment"
    )
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        path, _, anchor = (target[0] or target[1]).partition("#")
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        file = page.parent / path if path else page
        if file.resolve().relative_to(ROOT).as_posix() in MADE:
            continue
        assert file.exists(), f"{page.name}: no file {path}"
        assert not anchor or anchor in anchors(file), f"{page.name}: no heading {path}#{anchor}"
    named = r"`((?:docs|nbs_env|agents|baselines|benchmarks|tests|examples)/[\w/.-]+\.(?:py|md|png))`"
    for path in re.findall(named, text):
        assert (ROOT / path).exists() or path in MADE, f"{page.name}: no file {path}"


def test_every_figure_names_its_command() -> None:
    """A page with a table of measured F1, AUC, times or speed-ups says what makes it."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page.parent.name == "docs" and re.search(r"^\|.*\b(F1|f1|AUC|median)\b.*\|$", text, re.M):
            assert re.search(r"python (-m (benchmarks|baselines)|train\.py)|nbs \w+", text), page.name
