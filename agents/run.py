"""One whole run: environment and agent in, detector, figures and pictures out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agents.base import AgentError, check_state, file_name
from agents.load import agent_class
from agents.policy import Policy
from agents.scoring import finish, table
from agents.session import Session
from agents.trained import save as save_policy
from nbs_env.common import checkpoint
from nbs_env.common.errors import ConfigError, RunError
from nbs_env.common.networks import keep_freed_memory, pick_device
from nbs_env.common.runs import (
    at_least,
    check_data,
    check_names,
    check_settings,
    claim,
    digests,
    load_checkpoint,
    plain,
    versions,
)
from nbs_env.common.settings import check_types
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset, load, split
from nbs_env.desk.report import write_report
from nbs_env.detect.teaching import candidates
from nbs_env.detect.views import Views
from nbs_env.env import PatchSamplingEnv


@dataclass(frozen=True)
class RunArgs:
    """What to run, and where to put it."""

    agent: str = "reinforce"
    """A built-in agent (reinforce, ppo, a2c, ...; docs/reference/environment.md has all),
    trained:FILE or module:Class."""
    dataset: str = "synthetic"
    """Data set: synthetic, folder, mvtec, crackforest, nanotwice, magnetic_tile."""
    data_root: Path | None = None
    """Its folder; synthetic needs none."""
    category: str | None = None
    """Category, where the data set has some: grid of mvtec, say."""
    difficulty: float = 0.5
    """How hard the defects of synthetic are to find, from 0 to 1."""
    mask_values: tuple[int, ...] = ()
    """The stored values of mask files that are anomalous (85 170); none: a mask is read as it looks."""
    labeled: tuple[str, ...] = ("5",)
    """How many labelled images to draw, or their names; one number without leading zeros is how many."""
    seed: int = 0
    """Of the draw of labelled images, the weights and the agent."""
    preset: Literal["quick", "standard", "paper", "micro"] = "quick"
    """Settings to start from: minutes on two CPU cores, about half an hour, the papers' own, or seconds."""
    run_dir: Path | None = None
    """Folder for all results; default: runs/<dataset>-<agent>-<preset>-<seed>."""
    resume: bool = False
    """Go on from the last checkpoint in the run directory, with the settings stored there."""
    device: str = "auto"
    """cpu, cuda or auto."""
    checkpoint_every: int = 25
    """Updates between checkpoints."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        check_types(self, RunError)
        at_least(0, seed=self.seed)
        at_least(1, checkpoint_every=self.checkpoint_every)

    def directory(self) -> Path:
        """The run directory."""
        if self.run_dir is not None:
            return self.run_dir
        name = self.dataset + (f"-{self.category}" if self.category else "")
        return Path("runs") / f"{name}-{file_name(self.agent)}-{self.preset}-{self.seed}"


def settings(args: RunArgs, config: Config, options: Any) -> dict[str, Any]:
    """What makes a run what it is: two runs with equal settings give equal bits."""
    run = asdict(args)
    for name in ("run_dir", "resume", "device", "checkpoint_every"):
        del run[name]
    run["data_root"] = args.data_root and args.data_root.resolve()
    return plain({"run": run, "config": asdict(config), "agent": asdict(options) if options else {}})


def run(args: RunArgs, config: Config, options: Any = None) -> dict[str, Any]:
    """Train, calibrate, score and save; the content of metrics.json.

    Args:
        args: what to run.
        config: settings of the environment.
        options: the agent's options, an instance of its class's `Options`.

    Raises:
        RunError, ConfigError, DataError, AgentError, CheckpointError: before any training.
        TrainingError: a loss is no longer finite.
        WriteError: a file cannot be written.
    """
    directory = args.directory()
    make_agent = agent_class(args.agent)
    device = pick_device(args.device)
    if 0 < config.updates < config.profile_length:
        raise RunError(
            f"updates is {config.updates}; a detector needs a whole profile, so choose at least "
            f"profile_length ({config.profile_length}), or 0 for the segmenter alone"
        )
    if args.resume and stored_run(directory) is None:
        raise RunError(f"{directory} holds no run to resume; leave --resume out, or check --run-dir")
    with claim(directory, args.resume):
        now = settings(args, config, options)
        stored = _stored(directory, now) if args.resume else None
        keep_freed_memory()
        dataset, labeled, unlabeled = read_images(args, config)
        check_names(directory / "masks" / f"{dataset.names[i]}.png" for i in unlabeled)
        now["images"] = _digests(dataset, labeled)
        if args.resume:
            _check_images(directory, now["images"], dataset.name)
        env = PatchSamplingEnv(dataset, [dataset.names[i] for i in labeled], config, device=str(device))
        for size in candidates(dataset, config.segmenter_size):
            Views(dataset, size)  # is there such a size?
        env.reset(seed=args.seed)
        agent = make_agent(env, seed=args.seed, options=options)
        check_state(agent)
        session = Session(args, directory, env, agent, now)
        if stored is not None:
            session.load_state_dict(stored)
        checkpoint.save_json(now, directory / "config.json")
        session.announce()
        session.train()
        if env.learner.updates < config.updates:
            raise AgentError(
                f"agent {args.agent!r} stopped after {env.learner.updates} of {config.updates} updates; its "
                "learn has to play all episodes that it is asked for"
            )
        if isinstance(policy := getattr(agent, "policy", None), Policy):
            save_policy(policy, directory / "policy.pt")
        start = time.perf_counter()
        taught = session.teach() if config.segmenter_steps else None
        teaching = time.perf_counter() - start
        metrics = finish(env, directory, session.history, taught)
        seconds = {
            "training_seconds": session.seconds,
            "teaching_seconds": teaching,
            "masks_seconds": time.perf_counter() - start - teaching,
        }
        checkpoint.save_json(seconds, directory / "timing.json")
        metrics["made_with"] = versions() | {"arithmetic": session.arithmetic}
        checkpoint.save_json(metrics, directory / "metrics.json")
        report(directory, dataset)
    print(table(metrics))
    return metrics


def report(directory: Path, dataset: AnomalyDataset) -> None:
    """Write report.html; the run is complete, so whatever goes wrong is a line."""
    try:
        write_report(directory, dataset)
    except Exception as error:
        reason = str(error) or type(error).__name__
        print(f"note: no report.html ({reason}); the run is complete, and nbs report makes it")


def run_once(args: RunArgs, config: Config, options: Any = None) -> dict[str, Any]:
    """`run`, unless it was done before: an interrupted run is resumed, a finished one only looked up.

    Raises:
        RunError: the directory holds a run with other settings; and whatever `run` raises.
    """
    directory = args.directory()
    started = stored_run(directory)
    if started is None:
        return run(args, config, options)
    if not (directory / "metrics.json").is_file():
        return run(replace(args, resume=True), config, options)
    _stored(directory, settings(args, config, options))
    if args.data_root and args.data_root.resolve() != started[0].data_root:
        dataset, labeled, _ = read_images(args, config)
        _check_images(directory, _digests(dataset, labeled), dataset.name)
    return json.loads((directory / "metrics.json").read_text(encoding="utf-8"))


def stored_run(directory: Path) -> tuple[RunArgs, Config, dict[str, Any]] | None:
    """What the run in `directory` was started with, the agent's options last; None if there is no run.

    Raises:
        RunError: its config.json cannot be read.
    """
    file = directory / "config.json"
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        run, config, options = stored["run"], Config(**stored["config"]), dict(stored["agent"])
        return RunArgs(**run, run_dir=directory, resume=True), config, options
    except (
        RunError,
        ConfigError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise RunError(f"{file} does not hold the settings of a run; choose another --run-dir") from error


def read_images(args: RunArgs, config: Config) -> tuple[AnomalyDataset, np.ndarray, np.ndarray]:
    """The images, and the indices of the labelled and of the others."""
    dataset = load(
        args.dataset,
        args.data_root,
        category=args.category,
        image_size=config.image_size,
        seed=args.seed,
        difficulty=args.difficulty,
        mask_values=args.mask_values,
    )
    (first, *others) = args.labeled or ("",)
    counted = not others and first.isdecimal() and first == str(int(first))  # 001 is a name
    wanted = int(first) if counted else args.labeled
    labeled, unlabeled = split(dataset, wanted, np.random.default_rng(args.seed))
    if not len(unlabeled):
        raise RunError(
            f"all {len(dataset)} images of {dataset.name} are labelled, so none is left to make a mask of; "
            "label fewer or add images"
        )
    return dataset, labeled, unlabeled


def _digests(dataset: AnomalyDataset, labeled: np.ndarray) -> dict[str, str]:
    return digests(
        names=[dataset.names, labeled.tolist()],
        images=dataset.images,
        labelled_masks=dataset.masks[labeled],
        **({"good_images": dataset.good} if len(dataset.good) else {}),
    )


def _check_images(directory: Path, now: dict[str, str], name: str) -> None:
    """See that the images are those that config.json knows."""
    file = directory / "config.json"
    with checkpoint.unpacking(file):
        before = json.loads(file.read_text(encoding="utf-8")).get("images")
    check_data(before, now, name, directory)


def _stored(directory: Path, now: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint to resume from, begun with the settings `now`; None if killed before the first."""
    stored = load_checkpoint(directory, now)
    if stored is None:
        file = directory / "config.json"
        check_settings(json.loads(file.read_text(encoding="utf-8")), now, file)
    return stored
