"""One run directory: images in; detector, masks, figures and a report out; with or without a game.

As a command, `python -m nbs_env.desk.run --dataset folder --data-root FOLDER`, it plays none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch

from nbs_env.common import checkpoint
from nbs_env.common.errors import ConfigError, RunError
from nbs_env.common.networks import compute_dtype, keep_freed_memory, pick_device
from nbs_env.common.options import parse, parse_first
from nbs_env.common.runs import (
    check_data,
    check_names,
    check_settings,
    claim,
    command,
    digests,
    load_checkpoint,
    plain,
    versions,
)
from nbs_env.common.settings import AtLeast, Share, check_types
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset, load, split
from nbs_env.desk.report import write_report
from nbs_env.detect.config import PRESETS, DetectorConfig
from nbs_env.detect.finish import Played, finish, table
from nbs_env.detect.teaching import candidates
from nbs_env.detect.views import Views


@dataclass(frozen=True)
class DataArgs:
    """What to learn from."""

    dataset: str = "synthetic"
    """Data set: synthetic, folder, mvtec, crackforest, nanotwice, magnetic_tile."""
    data_root: Path | None = None
    """Its folder; synthetic needs none."""
    category: str | None = None
    """Category, where the data set has some: grid of mvtec, say."""
    difficulty: Annotated[float, Share()] = 0.5
    """How hard the defects of synthetic are to find, from 0 to 1."""
    mask_values: tuple[int, ...] = ()
    """The stored values of mask files that are anomalous (85 170); none: a mask is read as it looks."""
    labeled: tuple[str, ...] = ("5",)
    """How many labelled images to draw, or their names; one number without leading zeros is how many."""


@dataclass(frozen=True)
class RunArgs(DataArgs):
    """What to learn from, and where to put it."""

    seed: Annotated[int, AtLeast(0)] = 0
    """Of the draw of labelled images, the weights and the agent."""
    preset: Literal["quick", "standard", "paper", "micro"] = "quick"
    """Settings to start from: minutes on two CPU cores, the best masks, the papers' own, or seconds; the last
    two are for games."""
    run_dir: Path | None = None
    """Folder for all results; default: below runs/, called after what is run."""
    resume: bool = False
    """Go on from the last checkpoint in the run directory, with the settings stored there."""
    device: str = "auto"
    """cpu, cuda or auto."""

    def __post_init__(self) -> None:
        """Check types and bounds."""
        check_types(self, ConfigError)

    def directory(self, game: str = "") -> Path:
        """The run directory; `game` is a part of its name by default."""
        if self.run_dir is not None:
            return self.run_dir
        parts = [self.dataset, self.category, game, self.preset, str(self.seed)]
        return Path("runs") / "-".join(part for part in parts if part)


class Game(Protocol):
    """What is played before the detector is taught, and leaves snapshots to it."""

    name: str
    """Of who plays it, as a part of a path."""

    def settings(self) -> dict[str, Any]:
        """What makes it what it is."""

    def begin(
        self, data: AnomalyDataset, labeled: np.ndarray, args: RunArgs, settings: str, state: Any
    ) -> str:
        """Make ready, on from `state` if there is one; what is played, in a few words.

        Args:
            data: all images.
            labeled: indices of the labelled ones.
            args: the run's.
            settings: of the run, for checkpoints.
            state: of an earlier checkpoint.pt; None: there is none.
        """

    def play(self, directory: Path) -> Played:
        """Play to the end, with checkpoints in `directory`."""


def run(args: RunArgs, config: DetectorConfig, game: Game | None = None) -> dict[str, Any]:
    """Play the game if there is one, then teach, calibrate, mask, score and save.

    Args:
        args: what to learn from, and where to put it.
        config: settings of the detector.
        game: what is played first.

    Returns:
        The content of metrics.json.

    Raises:
        RunError, ConfigError, DataError, CheckpointError: before anything is learnt.
        TrainingError: a loss is no longer finite.
        WriteError: a file cannot be written.
    """
    directory, device = args.directory(game.name if game else ""), pick_device(args.device)
    if game is None and not config.segmenter_steps and not config.memory_size:
        raise RunError(
            "segmenter_steps and memory_size are 0 and no game is played, so nothing would be learnt; choose "
            "--preset quick, --segmenter-steps 200, --memory-size 4000, or an --agent"
        )
    if args.resume and stored_run(directory) is None:
        raise RunError(f"{directory} holds no run to resume; leave --resume out, or check --run-dir")
    with claim(directory, args.resume):
        now = settings(args, config, game)
        state = _stored(directory, now) if args.resume else None
        keep_freed_memory()
        data, labeled = read_images(args, config.image_size, args.seed)
        unlabeled = np.setdiff1d(np.arange(len(data)), labeled)
        normal = len(data.good) + len(labeled) if config.memory_size else 0
        if game is None and normal < 2 and not (config.segmenter_steps and data.masks[labeled].any()):
            raise RunError(
                f"{data.name}: no segmenter to teach and {normal} images for a memory, so nothing would be "
                "learnt; label a defect, or put known-good images into good/ (memory_size is "
                f"{config.memory_size}, segmenter_steps {config.segmenter_steps})"
            )
        check_names(directory / "masks" / f"{data.names[i]}.png" for i in unlabeled)
        now["images"] = _digests(data, labeled)
        if args.resume:
            _check_images(directory, now["images"], data.name)
        for size in candidates(data, config.segmenter_size):
            Views(data, size)  # is there such a size?
        played = game.begin(data, labeled, args, json.dumps(now), state) if game else "no game"
        checkpoint.save_json(now | {"made_with": versions()}, directory / "config.json")
        dtype = str(compute_dtype(config.precision, device)).removeprefix("torch.")
        threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
        print(
            f"{data.name}: {len(data)} images, {len(labeled)} labelled "
            f"({', '.join(data.names[i] for i in labeled) or 'none'}), {len(data.good)} more known to be "
            f"good; preset {args.preset}, {played}\n"
            f"on {device.type}, {dtype}{threads}; everything goes to {directory}",
            flush=True,
        )
        left = game.play(directory) if game else Played()
        metrics = finish(data, labeled, directory, config, args.seed, device, left)
        metrics["made_with"] = versions() | {"arithmetic": f"{device.type}, {dtype}"}
        checkpoint.save_json(metrics, directory / "metrics.json")
        report(directory, data)
    print(table(metrics))
    return metrics


def report(directory: Path, data: AnomalyDataset) -> None:
    """Write report.html; the run is complete, so whatever goes wrong is a line."""
    try:
        write_report(directory, data)
    except Exception as error:
        reason = str(error) or type(error).__name__
        print(f"note: no report.html ({reason}); the run is complete, and nbs report makes it")


def run_once(args: RunArgs, config: DetectorConfig, game: Game | None = None) -> dict[str, Any]:
    """`run`, unless it was done before: an interrupted run is resumed, a finished one only looked up.

    Raises:
        RunError: the directory holds a run with other settings; and whatever `run` raises.
    """
    directory = args.directory(game.name if game else "")
    started = stored_run(directory)
    if started is None:
        return run(args, config, game)
    if not (directory / "metrics.json").is_file():
        return run(replace(args, resume=True), config, game)
    _stored(directory, settings(args, config, game))
    if args.data_root and args.data_root.resolve() != started[0].data_root:
        data, labeled = read_images(args, config.image_size, args.seed)
        _check_images(directory, _digests(data, labeled), data.name)
    return json.loads((directory / "metrics.json").read_text(encoding="utf-8"))


def settings(args: RunArgs, config: DetectorConfig, game: Game | None) -> dict[str, Any]:
    """What makes a run what it is: two runs with equal settings give equal bits."""
    what = asdict(args)
    for name in ("run_dir", "resume", "device"):
        del what[name]
    what["data_root"] = args.data_root and args.data_root.resolve()
    return plain({"run": what, "detector": asdict(config), "game": game.settings() if game else {}})


def stored_run(directory: Path) -> tuple[RunArgs, DetectorConfig, dict[str, Any]] | None:
    """What the run in `directory` was started with, the game's settings last; None if there is no run.

    Raises:
        RunError: its config.json cannot be read, or has settings that are no more.
    """
    file = directory / "config.json"
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if "detector" not in stored:  # of a version that had one group for game and detector
            check_known(stored["config"], file, Config, DetectorConfig)
        check_known(stored["run"], file, RunArgs)
        check_known(stored["detector"], file, DetectorConfig)
        run = RunArgs(**stored["run"], run_dir=directory, resume=True)
        return run, DetectorConfig(**stored["detector"]), dict(stored["game"])
    except (ConfigError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RunError(f"{file} does not hold the settings of a run; choose another --run-dir") from error


def check_known(values: dict[str, Any], file: Path, *kinds: type) -> None:
    """See that all settings of a group in config.json are still there.

    Raises:
        RunError: naming the first that is not, and the version that lacks it.
    """
    gone = sorted(values.keys() - {field.name for kind in kinds for field in fields(kind)})
    if gone:
        raise RunError(
            f"{file} has {gone[0]} = {values[gone[0]]!r}, which version "
            f"{versions().get('neural-batch-sampling')} no longer has; begin a new run, or finish this one "
            "with the version that began it"
        )


def read_images(args: DataArgs, image_size: int, seed: int) -> tuple[AnomalyDataset, np.ndarray]:
    """The images, and the indices of the labelled ones."""
    data = load(
        args.dataset,
        args.data_root,
        category=args.category,
        image_size=image_size,
        seed=seed,
        difficulty=args.difficulty,
        mask_values=args.mask_values,
    )
    (first, *others) = args.labeled or ("",)
    counted = not others and first.isdecimal() and first == str(int(first))  # 001 is a name
    wanted = int(first) if counted else args.labeled
    labeled, unlabeled = split(data, wanted, np.random.default_rng(seed))
    if not len(unlabeled):
        raise RunError(
            f"all {len(data)} images of {data.name} are labelled, so none is left to make a mask of; "
            "label fewer or add images"
        )
    return data, labeled


def _digests(data: AnomalyDataset, labeled: np.ndarray) -> dict[str, str]:
    return digests(
        names=[data.names, labeled.tolist()],
        images=data.images,
        labelled_masks=data.masks[labeled],
        **({"good_images": data.good} if len(data.good) else {}),
    )


def _check_images(directory: Path, now: dict[str, str], name: str) -> None:
    """See that the images are those that config.json knows."""
    file = directory / "config.json"
    with checkpoint.unpacking(file):
        before = json.loads(file.read_text(encoding="utf-8"))["images"]
    check_data(before, now, name, directory)


def _stored(directory: Path, now: dict[str, Any]) -> dict[str, Any] | None:
    """The game's checkpoint to resume from, begun with the settings `now`; None if there is none."""
    state = load_checkpoint(directory, now)
    if state is None:
        file = directory / "config.json"
        check_settings(json.loads(file.read_text(encoding="utf-8")), now, file)
    return state


SHOWN = (
    *("dataset", "data_root", "labeled", "image_size"),
    *("preset", "run_dir", "seed", "resume", "device"),
    *("segmenter_steps", "segmenter_size", "memory_size", "false_alarm_rate"),
    *("agent", "updates", "episode_length"),
)
"""Options that `--help` shows; `--help-all` has the rest."""


def merged(parsed: dict[str, Any]) -> RunArgs:
    """`RunArgs` of its two groups on the command line, `data` and `run`."""
    return RunArgs(**vars(parsed["run"]) | vars(parsed["data"]))


def groups(args: RunArgs) -> dict[str, Any]:
    """The two groups of `RunArgs` on a command line."""
    data = DataArgs(**{field.name: getattr(args, field.name) for field in fields(DataArgs)})
    return {"data": data, "run": args}


FIXED = {"run": [field.name for field in fields(DataArgs)]}
"""Fields that have their flag in another group."""


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Teach a detector as the command line says; no game is played."""
    words = sys.argv[1:] if argv is None else argv
    args = parse_first(RunArgs, words)
    config = PRESETS[args.preset]
    stored = stored_run(args.directory()) if args.resume else None
    if stored is not None:
        args, config, game = stored
        if game:
            raise RunError(f"{args.directory()} holds a run with a game; go on with nbs train --resume")
    parsed = parse(words, groups(args) | {"detector": config}, __doc__ or "", SHOWN, FIXED)
    run(merged(parsed), parsed["detector"])


if __name__ == "__main__":
    main()
