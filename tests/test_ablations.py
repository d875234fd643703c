"""Ablations: every variant trains, and the table pairs its splits with those of the whole method."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import arguments

from benchmarks import ablations


def row(variant: str, seed: int, f1: float, without_crf: float = 0.0, error: str = "") -> dict[str, object]:
    figures = {} if error else {"nbs_crf.pixel_f1": f1, "nbs.pixel_f1": without_crf}
    return {"variant": variant, "seed": seed, "error": error, **figures}


def test_differences_are_of_the_same_split() -> None:
    rows = [
        row(ablations.ALL, 0, 0.5, 0.4),
        row(ablations.ALL, 1, 0.7, 0.7),
        row("profiles of one loss", 1, 0.4),
        row("masks of one cycle", 0, 0.0, error="OSError: disc full"),
    ]
    lines = {line[0]: line[1:] for line in ablations.table(rows)[1:]}
    assert lines[ablations.ALL] == ["2", "0.600", "-"]
    assert lines[ablations.NO_CRF][:2] == ["2", "0.550"]
    assert lines[ablations.NO_CRF][2].startswith("-0.050 [-0.100, ")
    assert lines["profiles of one loss"] == ["1", "0.400", "-0.300"]
    assert lines["masks of one cycle"] == ["0", "-", "-"]


def test_every_variant_is_a_run_of_its_own(tmp_path: Path) -> None:
    args = ablations.AblationArgs(out=tmp_path, seeds=2)
    found = ablations.jobs(args, ["--preset", "quick", "--agent", "random"])
    assert len(found) == 2 * len(ablations.VARIANTS)
    assert len({run.directory() for _, (run, _, _) in found}) == len(found)
    configs = {variant: config for variant, (run, config, _) in found if run.seed == 1}
    whole = configs.pop(ablations.ALL)
    for variant, config in configs.items():
        changed = [name for name in vars(whole) if getattr(whole, name) != getattr(config, name)]
        assert len(changed) == 1, variant
    assert configs["no re-initialisation"].reinit_period == whole.updates


def test_what_is_there_is_not_computed_again(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = (ablations.ALL, "masks of one cycle")
    monkeypatch.setattr(ablations, "VARIANTS", {name: ablations.VARIANTS[name] for name in names})
    words = [*arguments(agent="random"), "--data-root", str(folder), "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["ablations", *words, "--out", str(tmp_path / "out")])
    ablations.main()
    assert f"| {ablations.ALL} | 1 |" in capsys.readouterr().out
    table = (tmp_path / "out" / "table.md").read_text()
    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.json")}
    assert len(times) == 2
    ablations.main()
    assert (tmp_path / "out" / "table.md").read_text() == table
    assert times == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.json")}


def test_bad_input_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ablations", "--out", str(tmp_path / "out"), "--updates", "0"])
    with pytest.raises(SystemExit) as end:
        ablations.main()
    assert end.value.code == 2
    assert "updates is 0" in capsys.readouterr().err
