"""Ablations: every variant trains, and the table pairs its splits with those of the whole method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import NO_GAME, arguments

from benchmarks import ablations


def row(variant: str, seed: int, f1: float, without_crf: float = 0.0, error: str = "") -> dict[str, object]:
    figures = {"nbs_crf.pixel_f1": f1, "nbs_crf.pixel_ap": f1 / 2}
    figures |= {"nbs.pixel_f1": without_crf, "nbs.pixel_ap": without_crf / 2}
    return {"variant": variant, "seed": seed, "error": error, **({} if error else figures)}


def test_differences_are_of_the_same_split() -> None:
    rows = [
        row("all parts", 0, 0.5, 0.4),
        row("all parts", 1, 0.7, 0.7),
        row("profiles of one loss", 1, 0.4),
        row("masks of one cycle", 0, 0.0, error="OSError: disc full"),
    ]
    lines = {line[0]: line[1:] for line in ablations.table(rows, "sampling")[1:]}
    assert lines["all parts"] == ["2", "0.600", "-", "0.300", "-"]
    assert lines[ablations.NO_CRF][:2] == ["2", "0.550"]
    assert lines[ablations.NO_CRF][2].startswith("-0.050 [-0.100, ")
    assert lines["profiles of one loss"] == ["1", "0.400", "-0.300", "0.200", "-0.150"]
    assert lines["masks of one cycle"] == ["0", "-", "-", "-", "-"]


@pytest.mark.parametrize("part", ablations.PARTS)
def test_every_variant_is_a_run_of_its_own(part: Any, tmp_path: Path) -> None:
    args = ablations.AblationArgs(out=tmp_path, seeds=2, part=part)
    variants, _, _ = ablations.PARTS[part]
    found = list(ablations.cells(args, ["--preset", "quick"]))
    assert len(found) == 2 * len(variants)
    assert len({cell.place for cell in found}) == len(found)
    configs = {
        cell.key["variant"]: cell.settings["detector"] | cell.settings["game"].get("config", {})
        for cell in found
        if cell.key["seed"] == 1
    }
    whole = configs.pop(next(iter(variants)))
    for variant, config in configs.items():
        changed = [name for name in whole if whole[name] != config[name]]
        assert len(changed) == 1 + (variant == "a quarter of the width"), variant  # which wants two options
    if part == "sampling":
        assert configs["no re-initialisation"]["reinit_period"] == whole["updates"]


@pytest.mark.parametrize("part", ["sampling", "segmenter"])
def test_what_is_there_is_not_computed_again(
    part: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variants, *more = ablations.PARTS[part]
    first, *others = variants
    kept = {name: variants[name] for name in (first, others[-1])}
    monkeypatch.setitem(ablations.PARTS, part, (kept, *more))
    changes = NO_GAME | {"segmenter_steps": 2, "segmenter_folds": 2} if part == "segmenter" else {}
    words = [*arguments(**changes), "--data-root", str(folder), "--seeds", "1"]
    words += ["--part", part, "--out", str(tmp_path / "out")]
    ablations.main(words)
    assert f"| {first} | 1 |" in capsys.readouterr().out
    table = (tmp_path / "out" / "table.md").read_text()
    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.json")}
    assert len(times) == 2
    ablations.main(words)
    assert (tmp_path / "out" / "table.md").read_text() == table
    assert times == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.json")}
