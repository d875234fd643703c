"""Resuming: after a kill the same bits, and never with other settings, images or a damaged checkpoint."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import NO_GAME, TINY, UPDATES, Main
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import agents.game
import agents.run
import nbs_env.desk.run
from nbs_env.common import checkpoint
from nbs_env.data import reading
from nbs_env.detect.teaching import Teacher
from nbs_env.learner import Learner


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


def steps(run_dir: Path) -> list[int]:
    """The updates that TensorBoard shows."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars("train/autoencoder_loss")]


def assert_same_run(a: Path, b: Path, same_bits: Callable[..., None]) -> None:
    same_bits(checkpoint.load(a / "detector.pt"), checkpoint.load(b / "detector.pt"))
    metrics = (a / "metrics.json").read_text()
    assert metrics == (b / "metrics.json").read_text()
    assert (a / "walk.npz").read_bytes() == (b / "walk.npz").read_bytes()
    masks = sorted(path.name for path in (a / "masks").iterdir())
    assert masks == sorted(path.name for path in (b / "masks").iterdir())
    assert all((a / "masks" / name).read_bytes() == (b / "masks" / name).read_bytes() for name in masks)
    assert steps(a) == steps(b) == list(range(1, len(json.loads(metrics)["history"]) + 1))


@pytest.mark.parametrize(
    ("moments", "changes"),
    [
        (("first", "writing", "scoring"), {}),
        (("early", "late"), {"rollouts": 2}),
        (("early",), {"agent": "ppo", "batch_size": 8}),
        (("teaching",), {"segmenter_steps": 2}),
    ],
)
def test_a_killed_run_ends_with_the_same_bits(
    moments: tuple[str, ...],
    changes: dict[str, Any],
    main: Main,
    tmp_path: Path,
    same_bits: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed before the first checkpoint, while the second is written, while masks are made, or in between.

    Calls are counted from each start on: "late" is the last update, gone to from that of the third.
    """
    session = agents.game.AgentGame
    places: dict[str, tuple[Any, str, int]] = {
        "first": (Learner, "update", 2),
        "early": (session, "_on_episode", 5),
        "late": (session, "_on_episode", UPDATES - 3),
        "writing": (torch, "save", 3),  # the first of all is that of `check_state`
        "teaching": (Teacher, "step", 3),
        "scoring": (checkpoint, "save_picture", 3),
    }
    main(run_dir=tmp_path / "whole", **changes)
    again: dict[str, Any] = changes
    for moment in moments:
        with monkeypatch.context() as patch:
            die_at_call(*places[moment], patch)
            with pytest.raises(Killed):
                main(run_dir=tmp_path / "killed", **again)
        assert not (tmp_path / "killed" / "metrics.json").exists()
        again = dict.fromkeys(TINY) | {"data_root": None, "resume": True, "checkpoint_every": 3}
    main(run_dir=tmp_path / "killed", **again)
    assert_same_run(tmp_path / "whole", tmp_path / "killed", same_bits)


def die_at_call(owner: Any, name: str, number: int, patch: pytest.MonkeyPatch) -> None:
    original, calls = getattr(owner, name), itertools.count(1)

    def counted(*args: Any, **keywords: Any) -> Any:
        if next(calls) == number:
            if owner is torch:
                args[1].write_bytes(b"half a checkpoint")
            raise Killed
        return original(*args, **keywords)

    patch.setattr(owner, name, counted)


def test_images_on_disc_give_the_same_run(
    main: Main, tmp_path: Path, same_bits: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(run_dir=tmp_path / "memory")
    monkeypatch.setattr(reading, "ON_DISC", 0)
    main(run_dir=tmp_path / "disc")
    assert_same_run(tmp_path / "memory", tmp_path / "disc", same_bits)


def test_a_finished_run_is_scored_again(
    main: Main, tmp_path: Path, same_bits: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    main(run_dir=run_dir)
    before = {path: path.read_bytes() for path in run_dir.rglob("*.png")} | {
        path: path.read_bytes() for path in (run_dir / "metrics.json", run_dir / "config.json")
    }
    detector = checkpoint.load(run_dir / "detector.pt")
    for path in before:
        if path.name != "config.json":
            path.unlink()
    main(**dict.fromkeys(TINY), data_root=None, run_dir=run_dir, resume=True)
    assert {path: path.read_bytes() for path in before} == before
    same_bits(checkpoint.load(run_dir / "detector.pt"), detector)
    assert steps(run_dir) == list(range(1, UPDATES + 1))


def test_checkpoints_that_do_not_fit(
    main: Main, error: Callable[..., str], mine: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    main(run_dir=run_dir, data_root=mine, updates=3, checkpoint_every=3)
    again: dict[str, Any] = dict.fromkeys(TINY) | {"run_dir": run_dir, "resume": True, "data_root": None}
    assert "checkpoint.pt was made with updates = 3, not 5" in error(**again | {"updates": 5})
    assert "made with discount = 0.99, not 0.9" in error(**again | {"discount": 0.9})
    assert "made with agent = reinforce, not random" in error(**again | {"agent": "random"})

    Image.new("RGB", (128, 128)).save(mine / "images" / "new.png")
    assert "folder/mine no longer holds what" in (line := error(**again))
    assert "other names and images" in line
    (mine / "images" / "new.png").unlink()
    name = json.loads((run_dir / "metrics.json").read_text())["labeled"][0]
    file = mine / "masks" / f"{name}.png"
    before = file.read_bytes()
    with Image.open(file) as mask:
        mask.paste(255, (0, 0, 9, 9))
        mask.save(file)
    assert "other labelled masks" in error(**again)
    file.write_bytes(before)

    config = (run_dir / "config.json").read_text()
    (run_dir / "config.json").write_text(config.replace('"shift"', '"drift"'))
    assert "config.json has drift = 24, which version" in error(**again)
    older = {"run": {}, "config": {"shift": 24, "evaluation": "lazy"}, "agent": {}}
    (run_dir / "config.json").write_text(json.dumps(older))
    assert "config.json has evaluation = 'lazy', which version" in error(**again)
    (run_dir / "config.json").write_text(config.replace('"detector"', '"detectors"'))
    assert "config.json does not hold the settings of a run" in error(**again)
    (run_dir / "config.json").write_text(config)

    whole = (run_dir / "checkpoint.pt").read_bytes()
    (run_dir / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    assert "checkpoint.pt is truncated" in error(**again)
    (run_dir / "checkpoint.pt").unlink()
    assert "config.json was made with updates = 3, not 5" in error(**again | {"updates": 5})


def test_the_images_may_lie_elsewhere(
    main: Main, error: Callable[..., str], mine: Path, tmp_path: Path, same_bits: Callable[..., None]
) -> None:
    whole, run_dir, moved = tmp_path / "whole", tmp_path / "run", tmp_path / "elsewhere"
    main(run_dir=whole, data_root=mine)
    main(run_dir=run_dir, data_root=mine, checkpoint_every=6)
    (run_dir / "metrics.json").unlink()
    mine.rename(moved)
    again: dict[str, Any] = dict.fromkeys(TINY) | {"run_dir": run_dir, "resume": True, "data_root": moved}
    main(**again)
    assert (run_dir / "metrics.json").read_text() == (whole / "metrics.json").read_text().replace(
        "mine", "elsewhere"
    )
    main(**again | {"data_root": None})  # it knows where they lie now
    Image.new("RGB", (128, 128)).save(moved / "images" / "4.png")
    assert "folder/elsewhere no longer holds what" in (line := error(**again))
    assert "was begun with: other images; restore them" in line


@pytest.mark.parametrize(
    ("name", "spoil", "changes"),
    [
        ("checkpoint.pt", {"learner": 3}, {}),
        ("checkpoint.pt", {"agent": {}}, {}),
        ("checkpoint.pt", {"history": "["}, {}),
        ("checkpoint.pt", {"settings": "{"}, {}),
        ("teaching.pt", {"square/0": {}}, {"segmenter_steps": 2} | NO_GAME),
        ("teaching.pt", {"all": {}}, {"segmenter_steps": 2} | NO_GAME),
    ],
)
def test_what_is_damaged_within(
    name: str,
    spoil: dict[str, Any],
    changes: dict[str, Any],
    main: Main,
    error: Callable[..., str],
    tmp_path: Path,
) -> None:
    main(**{"run_dir": tmp_path / "run", "updates": 3, "checkpoint_every": 3} | changes)
    file = tmp_path / "run" / name
    checkpoint.save(checkpoint.load(file) | spoil, file)
    line = error(**dict.fromkeys(TINY), data_root=None, run_dir=tmp_path / "run", resume=True)
    assert f"{name} is truncated, damaged or of another kind; delete it" in line


def test_an_interruption_says_how_to_go_on(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nbs_env.desk.run, "read_images", interrupted)
    with pytest.raises(SystemExit) as end:
        main(run_dir=tmp_path / "run")
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"  # there is nothing yet to go on with
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    monkeypatch.setattr(Learner, "update", interrupted)
    with pytest.raises(SystemExit):
        main(run_dir=tmp_path / "run")
    assert capsys.readouterr().err.endswith("\ninterrupted; go on with --resume\n")
