"""The tables of the thesis: what they are made of, and that nothing is computed twice."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import arguments

from baselines import forest, unet
from benchmarks import tables
from nbs_env.desk import run


def results() -> tables.Results:
    """Two splits of one data set: the labels of the first showed holes, those of the second cracks."""
    found: tables.Results = {}
    for seed, seen in enumerate(("hole", "crack")):
        for method, f1 in (("unet", 0.2 + 0.2 * seed), ("nbs_crf", 0.5)):
            found["mvtec:grid", seed, method] = {
                **{f"pixel_{name}": f1 for name in tables.FIGURES},
                "pixel_aupro": None,
                "kinds": {"hole": (4, 0, 4), "crack": (3, 3, 0), "good": (0, 9, 0)},
                "labeled_kinds": [seen, "good"],
                "images": 10,
                "minutes": 2.0 + 2 * seed,
            }
    return found


def test_best_in_bold_beside_the_thesis() -> None:
    head, first, second = tables.main_table(results())
    assert head[:4] == ["data set", "method", "splits", "images"]
    assert first[:4] == ["mvtec:grid", "unet", "2", "10"]
    assert first[4:12] == ["0.300", "0.300", "0.300 [0.200, 0.400]", *["0.300"] * 4, "-"]
    assert first[12:] == ["3.0", "0.07", "0.51", "0.12"]
    assert second[6].startswith("**0.500** [0.500")
    assert second[13:] == ["0.10", "0.62", "0.17"]


def test_a_method_that_lacks_a_split_is_not_the_best() -> None:
    found = results()
    del found["mvtec:grid", 0, "nbs_crf"]
    _, first, second = tables.main_table(found)
    assert first[6].startswith("**0.300**")
    assert second[6] == "0.500"


def test_differences_are_of_pairs_and_data_sets_count_alike() -> None:
    """The grid's two pairs differ by 0.3 and 0.1, the screw's one by 0.4; a lone run is no pair."""
    found = results()
    found |= {
        ("mvtec:screw", 0, m): found["mvtec:grid", 0, m] | {"pixel_f1": f1}
        for m, f1 in (("unet", 0.1), ("nbs_crf", 0.5))
    }
    found["mvtec:screw", 1, "unet"] = found["mvtec:screw", 0, "unet"]
    for method in ("unet", "nbs_crf"):  # nothing to find
        found["mvtec:screw", 2, method] = found["mvtec:screw", 0, method] | {"pixel_ap": None}
    head, grid, screw, both = tables.differences_table(found)
    assert head[1] == "nbs_crf less"
    assert grid[:4] == ["mvtec:grid", "unet", "2", "+0.200 [+0.100, +0.300]"]
    assert screw[:4] == ["mvtec:screw", "unet", "1", "+0.400"]
    assert both[:4] == ["all data sets", "unet", "3", "+0.300"]


def test_kinds_seen_and_not_seen() -> None:
    """Seen: holes of the first split and cracks of the second, 7 of 14 found, 3 false alarms beside."""
    _, row, _ = tables.kinds_table(results())
    seen = 2 * 7 / (2 * 7 + 3 + 4)
    assert row == ["mvtec:grid", "unet", f"{seen:.3f}", f"{seen:.3f}", "crack 1.00, hole 0.50"]


def test_the_command(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    line = ["--out", out, "--data-root", folder, "--datasets", "folder", "--seeds", "1", "--labeled", "2"]
    words = [*map(str, line), *arguments(dataset=None, labeled=None, updates=6, segmenter_steps=2)]
    monkeypatch.setattr(unet, "leave_out", lambda *_: (2, 0.5))
    fit, few = forest.fit, forest.ForestConfig(trees=2)
    monkeypatch.setattr(forest, "fit", lambda problem, _, seed: fit(problem, few, seed))
    tables.main(words)
    text = capsys.readouterr().out
    for method in ("unet", "forest", "final_loss", "nbs", "nbs_crf", "segmenter"):
        assert f"| folder | {method} | 1 |" in text
    assert "Not computed: folder reconstruction: RunError: folder has no normal images" in text
    with (out / "results.csv").open() as file:
        methods = {row["method"] for row in csv.DictReader(file)}
    assert methods == {"unet", "forest", "final_loss", "nbs", "nbs_crf", "segmenter"}
    assert (out / "table.md").read_text().count("![](runs/folder-0/") == 3
    assert {file.name for file in out.rglob("*.pt")} == {"policy.pt"}  # small, and to be taken along

    monkeypatch.setattr(unet, "run", lambda _: pytest.fail("computed twice"))
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("computed twice"))
    tables.main(words)
    assert "| folder | nbs_crf | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["--image-size 100", "--rivals unets"])
def test_bad_input_ends_with_one_line(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        tables.main(["--out", str(tmp_path / "out"), *words.split()])
    assert end.value.code == 2
    name, value = words.removeprefix("--").replace("-", "_").split()
    assert f"error: {name} is {value}" in capsys.readouterr().err
