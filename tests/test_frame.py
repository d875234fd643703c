"""The frame of comparisons: what is there stands, unless another version or other settings made it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import frame
from benchmarks.frame import Cell, FrameArgs, Played
from benchmarks.report import report


@dataclass
class Game:
    """Plays cells of a size each; those of no size fail."""

    out: Path
    played: list[int]

    def _play(self, place: Path, size: int) -> dict[str, int]:
        if size < 0:
            raise ValueError("size is negative")
        place.mkdir(exist_ok=True)
        (place / "trace").write_text(str(size))
        self.played.append(size)
        return {"double": 2 * size}

    def __call__(self, *sizes: int, asked: Any = None, **settings: Any) -> Played:
        args = FrameArgs(out=self.out, seeds=1)
        self.played.clear()
        cells = []
        for size in sizes:
            place = args.runs / str(size)
            key = {"kind": "cell", "seed": size}
            cells.append(Cell(key, place, {"size": size} | settings, partial(self._play, place, size), asked))
        return frame.play(cells, args, "sizes.csv")

    def csv(self) -> list[str]:
        return (self.out / "sizes.csv").read_text().splitlines()[1:]


@pytest.fixture
def game(tmp_path: Path) -> Game:
    return Game(tmp_path / "out", [])


def test_what_is_there_is_not_played_again(game: Game, capsys: pytest.CaptureFixture[str]) -> None:
    game(1, 2)
    assert game.played == [1, 2]
    played = game(1, 2, 3)
    assert game.played == [3]
    assert [line.split(",")[-1] for line in game.csv()] == ["2", "4", "6"]
    assert list(played.figures.values()) == [{"double": 2}, {"double": 4}, {"double": 6}]
    assert "1 of 1: cell, seed 3: done" in capsys.readouterr().out
    assert not (game.out / "before").exists()


def test_a_cell_that_fails_is_named_and_stops_no_other(game: Game) -> None:
    played = game(-1, 1, -2)
    problem = "ValueError: size is negative"
    assert game.csv() == [f"cell,-1,{problem},", "cell,1,,2", f"cell,-2,{problem},"]
    failed = played.failed(("cell: nothing to score", 1))
    assert failed == [f"cell: {problem} (seed -1, -2)", "cell: nothing to score (seed 1)"]
    picture = game.out.resolve() / "runs" / "a.png"
    report(game.out, "sizes", ["--out", "x y"], "cpu", [[["a"], ["**b**"]]], failed, {"A": picture})
    text = (game.out / "table.md").read_text()
    assert text.startswith("`python -m benchmarks.sizes --out 'x y'`\n\nCPU, ")
    assert "\n\n| a |\n| --- |\n| **b** |\n\n" in text
    assert f"\n\nNot computed: {failed[0]}\n\nNot computed: {failed[1]}\n\n" in text
    assert text.endswith("A:\n\n![](runs/a.png)\n")
    game(-1, 1, -2)
    assert game.played == []  # a failure is tried again, and fails


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "by another version of the code"),
        ({"width": 5, "run": {"deep": [1]}}, "with deep = [0], not [1]"),
    ],
)
def test_other_code_and_other_settings_do_not_stand(
    settings: dict[str, Any],
    reason: str,
    game: Game,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = {"width": 5, "run": {"deep": [0]}}
    game(1, 2, **usual)
    if not settings:
        monkeypatch.setattr(frame, "code", lambda: "0.2.0, abc")
    capsys.readouterr()
    game(1, 2, **settings or usual)
    assert game.played == [1, 2]
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "played again" in line] == said[:1]
    assert f"made {reason}, so put into" in said[0]
    assert said[0].endswith("cell 1, cell 2")
    assert {file.name for file in (game.out / "before" / "runs").iterdir()} == {"1", "2", "1.json", "2.json"}
    game(1, 2, **settings or usual)
    assert game.played == []
    (game.out / "runs" / "1.json").unlink()  # as of all that was made before versions were kept
    game(1, **settings or usual)
    assert game.played == [1]


def test_the_version_is_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def version(text: str) -> str:
        frame.code.cache_clear()
        (tmp_path / "agents" / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / "agents" / "deep" / "a.py").write_text(text)
        return frame.code()

    usual = frame.code()
    assert usual == frame.code()
    monkeypatch.setattr(frame, "__file__", str(tmp_path / "benchmarks" / "frame.py"))
    first, other, again = map(version, ("a = 1", "a = 2", "a = 1"))
    frame.code.cache_clear()
    assert first == again
    assert len({usual, first, other}) == 3


def test_moved_data_and_other_questions_are_looked_at_in_place(game: Game) -> None:
    game(1, data_root="/here")
    for _ in range(2):
        game(1, data_root="/there")
    assert game.played == []
    game(1, data_root="/here", asked=["more"])
    assert game.played == [1]
    assert not (game.out / "before").exists()


def test_an_interrupted_cell_goes_on_in_its_folder(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Game._play

    def killed(self: Game, place: Path, size: int) -> dict[str, int]:
        original(self, place, size)
        raise KeyboardInterrupt

    monkeypatch.setattr(Game, "_play", killed)
    with pytest.raises(KeyboardInterrupt):
        game(1)
    monkeypatch.setattr(Game, "_play", original)
    state = json.loads((game.out / "runs" / "1.json").read_text())
    assert "figures" not in state
    game(1)
    assert game.played == [1]
    assert not (game.out / "before").exists()


def test_what_could_not_run_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(frame.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(frame.RunError, match="engine is ray"):
        FrameArgs(out=tmp_path, engine="ray")
    with pytest.raises(frame.RunError, match="seeds is 0"):
        FrameArgs(out=tmp_path, seeds=0)
