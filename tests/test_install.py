"""A built wheel in an empty environment, outside of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import arguments

import nbs

ROOT = Path(nbs.__file__).parent
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__", "shared")


@pytest.mark.slow
def test_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    """Every command can be imported, `nbs train` runs on built-in images, `nbs predict` on its masks."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    place, programs = tmp_path / "elsewhere", tmp_path / "empty" / "bin"
    place.mkdir()

    def call(*words: str) -> str:
        done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shutil.copytree(ROOT, tmp_path / "source", ignore=LEFT_OUT)  # a build leaves files behind
    call(sys.executable, "-m", "venv", str(tmp_path / "empty"))
    python = str(programs / "python")
    call(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", ".", str(tmp_path / "source"))
    (wheel,) = place.glob("*.whl")
    packages = ("nbs_env", "agents", "baselines", "benchmarks")
    files = [file for package in packages for file in (tmp_path / "source" / package).rglob("*.*")]
    packed = zipfile.ZipFile(wheel).namelist()
    assert {str(file.relative_to(tmp_path / "source")) for file in files} <= set(packed)
    call(python, "-m", "pip", "install", str(wheel))
    listed = "import nbs; print(nbs.__file__); print(*nbs.commands())"
    file, names = call(python, "-c", listed).splitlines()
    assert Path(file).is_relative_to(tmp_path / "empty")
    assert names.split() == list(nbs.commands())
    code = "import importlib, nbs; [importlib.import_module(m).main for m in nbs.commands().values()]"
    call(python, "-c", code)
    tiny = arguments(dataset="synthetic", run_dir="run", segmenter_steps=2)
    call(str(programs / "nbs"), "train", *tiny)
    call(str(programs / "nbs"), "predict", "--run", "run", "--images", "run/masks", "--out", "out")
    assert json.loads((place / "run" / "metrics.json").read_text())["methods"].keys() >= {"segmenter", "nbs"}
    assert len(list((place / "out" / "masks").iterdir())) == 40 - 2
