"""The comparison of samplers: what is run and what is not, its tables, and a cluster that loses a machine."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import arguments

from benchmarks import policies
from benchmarks.policies import score_matrix, smooth, table
from benchmarks.statistics import estimate, mean
from nbs_env.desk import run

Compare = Callable[..., int]
FIGURE = "nbs_crf.pixel_f1"


@pytest.fixture
def compare(folder: Path, tmp_path: Path) -> Compare:
    """The command on the tiny images; its exit status."""

    def call(*words: str, **changes: Any) -> int:
        tiny = arguments(**{"dataset": None, "agent": None, **changes})
        try:
            policies.main(["--out", str(tmp_path / "out"), "--data-root", str(folder), *words, *tiny])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call


def read(out: Path) -> list[dict[str, str]]:
    with (out / "runs.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_combination_is_run_once(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("--agents", "random,reinforce", "--datasets", "folder", "--seeds", "2")
    assert compare(*words, updates=6) == 0
    rows = read(out)
    assert [(r["agent"], r["seed"]) for r in rows] == [
        ("random", "0"),
        ("reinforce", "0"),
        ("random", "1"),
        ("reinforce", "1"),
    ]
    for row in rows:
        assert row["error"] == ""
        assert float(row["wall_seconds"]) > 0
        assert int(row["env_steps"]) == 6 * 8
        assert -1 <= float(row["R_clone_mean"]) <= 1
        assert float(row["R_pred_mean"]) < 0
        assert 0 <= float(row[FIGURE]) <= 1
    assert {file.name for file in out.rglob("*.pt")} == {"policy.pt"}  # small, and to be taken along
    for name in ("table.md", "curves-folder.png"):
        assert (out / name).stat().st_size > 100
    assert "python -m benchmarks.policies --out" in (out / "table.md").read_text()
    assert "| folder | reinforce | 2 |" in capsys.readouterr().out

    started = []
    original = run.run

    def watched(args: run.RunArgs, config: Any, game: Any) -> dict[str, Any]:
        started.append((game.agent_name, args.seed))
        return original(args, config, game)

    monkeypatch.setattr(run, "run", watched)
    assert compare("--agents", "random,reinforce,sweep", *words[2:], updates=6) == 0
    assert started == [("sweep", 0), ("sweep", 1)]
    again = [row for row in read(out) if row["agent"] != "sweep"]
    assert again == rows


def test_a_run_that_fails_stops_no_other(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = run.finish

    def broken(data: Any, labeled: Any, directory: Path, *rest: Any) -> dict[str, Any]:
        if directory.name == "folder-random-0":
            raise MemoryError("too large")
        return original(data, labeled, directory, *rest)

    monkeypatch.setattr(run, "finish", broken)
    words = ("--agents", "random,sweep", "--datasets", "folder", "--seeds", "1")
    assert compare(*words, updates=4) == 1
    rows = read(tmp_path / "out")
    assert [row["error"] for row in rows] == ["MemoryError: too large", ""]
    assert "Not computed: random folder: MemoryError: too large (seed 0)" in capsys.readouterr().out
    monkeypatch.setattr(run, "finish", original)
    assert compare(*words, updates=4) == 0  # goes on from the checkpoint
    assert [row["error"] for row in read(tmp_path / "out")] == ["", ""]


def test_bad_input_ends_with_one_line(compare: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--agents", "nobody", "--seeds", "1") == 2
    error = capsys.readouterr().err
    assert "'nobody'" in error
    assert error.count("\n") == 1


def rows_of(scores: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    return [
        {"agent": agent, "dataset": dataset, "seed": seed, "error": "", FIGURE: value, "wall_seconds": 7.0}
        for (agent, dataset), values in scores.items()
        for seed, value in enumerate(values)
    ]


def test_table_of_known_scores() -> None:
    base = [0.1, 0.2, 0.3, 0.4]
    better = [value + 0.05 for value in base]
    rows = rows_of({("a", "x"): base, ("b", "x"): better, ("a", "y"): base, ("b", "y"): base[:3]})
    lines = {(line[0], line[1]): line[2:] for line in table(rows, FIGURE)[1:]}
    assert list(lines) == [(d, a) for d in ("x", "y", "all") for a in ("a", "b")]
    runs, middle, difference, better_than, seconds = lines["x", "b"]
    assert (runs, seconds) == ("4", "7")
    assert middle.startswith("0.300 [")  # the mean of the middle half
    assert difference == "+0.050 [+0.050, +0.050]"  # pairs: every seed differs by as much
    assert better_than.startswith("0.625 [")  # 10 of the 16 pairs
    assert lines["y", "b"][0] == lines["all", "a"][0] == "3"  # seeds that all have finished
    assert lines["y", "b"][2] == "+0.000 [+0.000, +0.000]"
    assert lines["x", "a"][2:4] == ["-", "-"]


def test_failed_runs_are_left_out_of_the_scores() -> None:
    rows = rows_of({("a", "x"): [0.1, 0.2, 0.3], ("b", "x"): [0.1, 0.2, 0.3]})
    del rows[1][FIGURE]
    np.testing.assert_array_equal(score_matrix(rows, "b", ["x"], FIGURE), [[0.1], [0.3]])
    for row in (rows[0], rows[2]):  # now the first agent has none
        del row[FIGURE]
    lines = {line[1]: line[2:5] for line in table(rows, FIGURE)[1:]}
    assert lines["a"] == ["0", "-", "-"]
    assert lines["b"][0] == "3"
    assert lines["b"][1].startswith("0.200 [")
    assert lines["b"][2] == "-"


def test_intervals_against_a_slow_reference() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 2))
    middle, low, high = estimate(list(scores.T), mean)
    rng = np.random.default_rng(1)
    draws = [
        np.mean([scores[rng.integers(8, size=8), column].mean() for column in (0, 1)]) for _ in range(5000)
    ]
    assert middle == pytest.approx(scores.mean())
    np.testing.assert_allclose([low, high], np.quantile(draws, [0.025, 0.975]), atol=0.02)
    assert estimate(list(scores.T), mean) == (middle, low, high)
    assert np.isnan(estimate(list(scores[:1].T), mean)[1:]).all()


def test_smoothing_skips_what_is_missing() -> None:
    values = np.array([np.nan, 1, 3, np.nan, 5])
    np.testing.assert_array_equal(smooth(values, 2), [np.nan, 1, 2, 3, 5])


@pytest.mark.slow
@pytest.mark.usefixtures("all_kernels")
def test_a_cluster_that_loses_a_machine_gives_the_same_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines of one core; one dies as soon as a run has a checkpoint. One thread here and there."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    def compare(engine: str) -> list[dict[str, str]]:
        out = str(tmp_path / engine)
        words = ["--agents", "random,sweep", "--datasets", "folder", "--data-root", str(folder)]
        tiny = ["--seeds", "2", *arguments(dataset=None, updates=6)]
        policies.main(["--out", out, "--engine", engine, *words, *tiny])
        rows = read(tmp_path / engine)
        assert all(row["error"] == "" for row in rows)
        return [{name: value for name, value in row.items() if name != "wall_seconds"} for row in rows]

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    machines = [cluster.add_node(num_cpus=1)]
    ray.init(address=cluster.address, log_to_driver=False)
    wait = ray.wait

    def wait_and_kill(*args: Any, **options: Any) -> Any:
        while machines:
            wait(*args, **options, timeout=0.05)
            if len(list((tmp_path / "ray").rglob("checkpoint.pt"))) == 2:
                cluster.remove_node(machines.pop(), allow_graceful=False)
        return wait(*args, **options)

    monkeypatch.setattr(ray, "wait", wait_and_kill)
    try:
        assert compare("ray") == compare("local")
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not machines
