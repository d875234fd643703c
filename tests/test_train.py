"""The training command: its errors, resuming after a kill, and agents that are plugged in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NO_GAME, ODD_SIZE, TINY, UPDATES
from PIL import Image

import agents.run
from agents.heuristics import Random
from nbs_env.autoencoder import AutoencoderTrainer
from nbs_env.common import checkpoint
from nbs_env.detect.detector import Detector
from nbs_env.detect.finish import table

Main = Callable[..., None]


@dataclass(frozen=True)
class PickyOptions:
    """Settings of `Picky`."""

    favourite: int = 2
    """The only action it ever takes."""


class Picky(Random):
    """An agent that is not built in, with an option."""

    Options = PickyOptions

    def __init__(self, env: Any, seed: int, options: PickyOptions) -> None:
        super().__init__(env, seed)
        self.options = options

    def act(self, observation: np.ndarray) -> int:
        """Always the favourite."""
        assert observation.shape == (5, 128, 128)
        return self.options.favourite


@dataclass(frozen=True)
class _Clash:
    seed: int = 1


class Clashing(Picky):
    """Its option has the name of a setting."""

    Options = _Clash  # type: ignore[assignment]


def test_the_run_directory(finished: Path) -> None:
    files = {path.name for path in finished.iterdir()}
    files -= {name for name in files if name.startswith("events.")}
    assert files == {
        *("checkpoint.pt", "config.json", "detector.pt", "masks", "metrics.json", "nbs.pt", "overlays.png"),
        *("policy.pt", "predictions.csv", "probabilities", "report.html", "teaching.pt", "timing.json"),
        "walk.npz",
    }
    sizes = {name: (finished / name).stat().st_size for name in ("detector.pt", "nbs.pt")}
    assert sizes["detector.pt"] < 5_000_000
    methods = {name: Detector.load(finished / name).methods for name in sizes}
    assert methods == {"detector.pt": ("segmenter",), "nbs.pt": ("nbs",)}
    assert Detector.file_of(finished, "nbs").name == "nbs.pt"
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["labeled"] == ["0", "1"]
    assert metrics["scored_images"] == 2  # 4 has no mask
    assert list(metrics["methods"]) == ["segmenter", "nbs", "nbs_crf", "final_loss"]
    assert len(metrics["history"]) == UPDATES
    sizes = {}
    for path in (finished / "masks").iterdir():
        with Image.open(path) as mask:
            sizes[path.stem] = (mask.height, mask.width)
            assert set(np.unique(np.asarray(mask))) <= {0, 255}
    assert sizes == {"2": ODD_SIZE, "3": (128, 128), "4": (128, 128)}
    assert "nbs_crf" in table(metrics)


def test_masks_of_others_serve_the_figures_alone(
    finished: Path, mine: Path, main: Main, tmp_path: Path, same_bits: Callable[..., None]
) -> None:
    """Garbage in the place of 2's mask and of 3's: what plays, learns and marks has the same bits."""
    rng = np.random.default_rng(0)
    for name in ("2", "3"):
        file = mine / "masks" / f"{name}.png"
        with Image.open(file) as mask:
            Image.fromarray(rng.choice(np.array([0, 255], np.uint8), mask.size[::-1])).save(file)
    main(data_root=mine, run_dir=tmp_path / "run", labeled="0 1", segmenter_steps=2)
    for name in ("detector.pt", "nbs.pt", "policy.pt"):
        same_bits(checkpoint.load(finished / name), checkpoint.load(tmp_path / "run" / name))
    for path in (finished / "masks").iterdir():
        assert path.read_bytes() == (tmp_path / "run" / "masks" / path.name).read_bytes()
    figures = [(run / "metrics.json").read_text() for run in (finished, tmp_path / "run")]
    assert figures[0] != figures[1]


# Wrong input


def _remove_images(root: Path) -> None:
    for file in (root / "images").iterdir():
        file.unlink()
    (root / "images").rmdir()


def _truncate_image(root: Path) -> None:
    file = root / "images" / "1.png"
    file.write_bytes(file.read_bytes()[:2000])


def _empty_masks(root: Path) -> None:
    for file in (root / "masks").iterdir():
        with Image.open(file) as mask:
            Image.new("L", mask.size).save(file)


def _save(name: str, size: tuple[int, int]) -> Callable[[Path], None]:
    return lambda root: Image.new("RGB", size).save(root / name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove_images, "expected images/ and masks/"),
        (_truncate_image, "1.png: not a readable image"),
        (_empty_masks, "no mask holds an anomalous pixel; add one"),
        (_save("masks/9.png", (128, 128)), "9.png: a mask without its image; add an image"),
        (_save("masks/4.png", (128, 127)), "but its image 4.png has 128x128"),
        (_save("images/9.png", (63, 128)), "smaller than a patch; expected at least 64"),
    ],
)
def test_wrong_images(
    spoil: Callable[[Path], None], message: str, mine: Path, error: Callable[..., str], tmp_path: Path
) -> None:
    spoil(mine)
    line = error(data_root=mine, run_dir=tmp_path / "run")
    assert message in line
    assert str(mine) in line or "folder/mine" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_root": "nowhere"}, "nowhere: no such directory"),
        ({"data_root": None}, "give its folder"),
        ({"dataset": "mvtek"}, "choose one of synthetic, folder"),
        ({"labeled": "5"}, "only 4 of 5 images have a mask"),
        ({"labeled": "0"}, "ask for at least 1"),
        ({"labeled": "-1"}, "no image is named '-1'"),
        ({"labeled": "001"}, "no image is named '001'"),
        ({"labeled": ""}, "no labelled image is named"),
        ({"agent": "nobody"}, "choose reinforce"),
        ({"agent": "test_train:Clashing"}, "rename the option"),
        ({"device": "tpu"}, "choose cpu, cuda or auto"),
        ({"updates": 2}, "choose at least profile_length (3)"),
        (NO_GAME, "segmenter_steps and memory_size are 0 and no game is played"),
        ({"resume": True}, "leave --resume out"),
        # One bound of each part of the settings: game, detector, run, who plays, and the agent's options.
        ({"updates": 0}, "updates is 0; it must be at least 1"),
        ({"segmenter_folds": 0}, "segmenter_folds is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0; it must be at least 1"),
        ({"agent": "ppo", "epochs": 0}, "epochs is 0; it must be at least 1"),
    ],
)
def test_wrong_values(
    changes: dict[str, Any],
    message: str,
    error: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error(**{"run_dir": "run"} | changes)
    assert not (tmp_path / "run").exists()


def test_a_game_needs_a_defect(mine: Path, error: Callable[..., str], tmp_path: Path) -> None:
    _empty_masks(mine)
    line = error(data_root=mine, run_dir=tmp_path / "run", labeled="0 1")
    assert "folder/mine: no labelled image has a defect" in line
    assert "or train without an agent" in line
    assert not (tmp_path / "run").exists()


def test_nothing_left_to_predict(mine: Path, error: Callable[..., str], tmp_path: Path) -> None:
    (mine / "images" / "4.png").unlink()
    line = error(data_root=mine, run_dir=tmp_path / "run", labeled=4)
    assert "all 4 images of folder/mine are labelled" in line


@pytest.mark.parametrize("changes", [{"preset": "fast"}, {"updtes": 5}, {"updates": "many"}])
def test_command_lines_that_cannot_be_parsed(
    changes: dict[str, Any], main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(run_dir=tmp_path / "run", **changes)
    assert end.value.code == 2
    assert next(iter(changes)) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_loss_that_is_not_a_number(
    error: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoencoderTrainer, "train", lambda *_: float("nan"))
    line = error(run_dir=tmp_path / "run")
    assert "autoencoder's loss became nan at update 1; lower autoencoder_lr (0.0003)" in line


def test_a_run_is_never_overwritten(error: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    assert "run already holds a run; choose another --run-dir" in error(run_dir=tmp_path / "run")
    (tmp_path / "file").touch()
    assert "file is a file; choose another folder" in error(run_dir=tmp_path / "file")


class Lazy(Random):
    """Stops an episode early."""

    def learn(self, env: Any, episodes: int, on_episode: Any) -> None:
        """Play all but one."""
        super().learn(env, episodes - 1, on_episode)


class Fractional(Random):
    """Its actions are no whole numbers."""

    def act(self, observation: np.ndarray) -> int:
        """Between two."""
        return 3.7  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ("Lazy", f"stopped after {UPDATES - 1} of {UPDATES} updates"),
        ("Fractional", "action is 3.7; choose a whole number from 0 to 8"),
    ],
)
def test_an_agents_fault_is_one_line(
    agent: str, message: str, error: Callable[..., str], tmp_path: Path
) -> None:
    assert message in error(agent=f"test_train:{agent}", run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


# Agents


def test_an_agent_is_plugged_in(main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    original = Picky.act

    def watched(self: Picky, observation: np.ndarray) -> int:
        taken.append(original(self, observation))
        return taken[-1]

    monkeypatch.setattr(Picky, "act", watched)
    main(run_dir=tmp_path / "run", agent="test_train:Picky", favourite=7, updates=4)
    assert set(taken) == {7}
    assert len(taken) == 4 * 8
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["game"]["agent"] == "test_train:Picky"
    assert stored["game"]["options"] == {"favourite": 7}


def test_help_is_short_and_help_all_lists_the_settings_of_the_agent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = []
    for words in (
        ["--help"],
        ["--agent", "test_train:Picky", "--help"],
        ["--agent", "test_train:Picky", "--help-all"],
    ):
        with pytest.raises(SystemExit) as end:
            agents.run.main(words)
        assert end.value.code == 0
        listed.append(set(re.findall(r"^\W* (--[a-z][a-z-]+)", capsys.readouterr().out, re.MULTILINE)))
    brief, played, everything = listed
    assert {"--data-root", "--agent"} < brief < played < everything
    assert len(played) <= 16
    assert {"--reinit-period", "--favourite"} < everything - played
    assert "--entropy-weight" not in everything


def test_segmenter_alone(main: Main, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    main(run_dir=run_dir, segmenter_steps=2, **NO_GAME)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert list(metrics["methods"]) == ["segmenter"]
    assert metrics["masks"] == "segmenter"
    assert metrics["history"] == []
    detector = Detector.load(run_dir / "detector.pt")
    assert detector.methods == ("segmenter",)
    assert detector.thresholds == {"segmenter": metrics["thresholds"]["segmenter"]}
    main(**dict.fromkeys(TINY), data_root=None, run_dir=run_dir, resume=True)
    assert json.loads((run_dir / "metrics.json").read_text()) == metrics


def test_no_segmenter(main: Main, tmp_path: Path) -> None:
    main(run_dir=tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["methods"]) == ["nbs", "nbs_crf", "final_loss"]
    assert metrics["masks"] == "nbs_crf"
    assert not (tmp_path / "run" / "teaching.pt").exists()


def test_a_folder_without_truth_gets_masks_and_a_sentence(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two images carry masks and both are labelled: no figure can be had, and none is shown."""
    for name, count in (("images", 4), ("masks", 2)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(count):
            picture = np.zeros((96, 96), np.uint8)
            picture[30:60, 30:60] = 255
            Image.fromarray(picture).save(tmp_path / "mine" / name / f"{number}.png")
    mine = {"dataset": "folder", "data_root": tmp_path / "mine", "labeled": "2"}
    main(run_dir=tmp_path / "run", segmenter_steps=2, **mine, **NO_GAME)
    out = capsys.readouterr().out
    assert "no figures: the truth of no unlabelled image is known" in out
    assert "masks/ has those of segmenter" in out
    assert "precision" not in out
    assert {path.name for path in (tmp_path / "run" / "masks").iterdir()} == {"2.png", "3.png"}


@pytest.mark.parametrize("words", [["--updates", "0"], ["--updates=0"]])
def test_no_updates_without_an_agent_are_no_game(words: list[str]) -> None:
    assert agents.run.parse(["--seed", "3", *words]) == agents.run.parse(["--seed", "3"])
    assert agents.run.parse(words)[2] is None
