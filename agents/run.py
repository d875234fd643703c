"""One whole run: environment and agent in, detector, figures and pictures out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from agents.base import AgentError, agent_class, check_state
from agents.scoring import finish, overlays, table
from nbs_env import checkpoint
from nbs_env.config import Config, ConfigError, check_types
from nbs_env.curves import Curves
from nbs_env.data import AnomalyDataset, load, split
from nbs_env.detect.teaching import Taught, folds, teach
from nbs_env.env import PatchSamplingEnv, pick_device
from nbs_env.networks import keep_freed_memory
from nbs_env.predictor import predict
from nbs_env.runs import (
    RunError,
    at_least,
    check_data,
    check_names,
    check_settings,
    claim,
    digests,
    load_checkpoint,
    plain,
)


@dataclass(frozen=True)
class RunArgs:
    """What to run, and where to put it."""

    agent: str = "reinforce"
    """A built-in agent (reinforce, ppo, a2c, dqn, random, ...; see the README) or module:Class."""
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
    preset: Literal["quick", "standard", "paper"] = "quick"
    """Settings to start from: about six minutes on two CPU cores, about half an hour, or the papers' own."""
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
        return Path("runs") / f"{name}-{self.agent.replace(':', '.')}-{self.preset}-{self.seed}"


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
        dataset, labeled, unlabeled = _read(args, config)
        check_names(directory / "masks" / f"{dataset.names[i]}.png" for i in unlabeled)
        now["images"] = _digests(dataset, labeled)
        if args.resume:
            _check_images(directory, now["images"], dataset.name)
        env = PatchSamplingEnv(dataset, [dataset.names[i] for i in labeled], config, device=str(device))
        env.reset(seed=args.seed)
        agent = make_agent(env, seed=args.seed, options=options)
        check_state(agent)
        session = _Session(args, directory, env, agent, now)
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
        checkpoint.save_json(metrics, directory / "metrics.json")
    print(table(metrics))
    return metrics


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
        dataset, labeled, _ = _read(args, config)
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


def _read(args: RunArgs, config: Config) -> tuple[AnomalyDataset, np.ndarray, np.ndarray]:
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


class _Session:
    """The running state of one run: what is logged, checkpointed and finally scored."""

    def __init__(
        self, args: RunArgs, directory: Path, env: PatchSamplingEnv, agent: Any, settings: dict[str, Any]
    ) -> None:
        self.args, self.directory, self.env, self.agent = args, directory, env, agent
        self.learner, self.config, self.settings = env.learner, env.config, json.dumps(settings)
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.arithmetic = f"{self.learner.device.type}, {str(self.learner.dtype).removeprefix('torch.')}"

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "settings": self.settings,
            "learner": self.learner.state_dict(),
            "agent": self.agent.state_dict(),
            "arithmetic": self.arithmetic,
            "env_rng": json.dumps(self.env.np_random.bit_generator.state),
            "history": json.dumps(self.history),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            CheckpointError: it is no such state.
        """
        with checkpoint.unpacking(self.directory / "checkpoint.pt"):
            self.learner.load_state_dict(state["learner"])
            self.agent.load_state_dict(state["agent"])
            self.env.np_random.bit_generator.state = json.loads(state["env_rng"])
            self.history = list(json.loads(state["history"]))
            self.seconds = float(state["seconds"])
            if state["arithmetic"] != self.arithmetic:
                print(f"note: begun on {state['arithmetic']}, so the run will not end with the same bits")

    def announce(self) -> None:
        """Say what runs, and on what."""
        data, config, device = self.env.dataset, self.config, self.learner.device
        threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
        left = config.updates - self.learner.updates
        print(
            f"{self.args.agent} on {data.name}: {len(data)} images, {len(self.env.labeled)} labelled "
            f"({', '.join(data.names[i] for i in self.env.labeled)}); preset {self.args.preset}, "
            f"{left} of {config.updates} updates to go\n"
            f"on {self.arithmetic}{threads}; everything goes to {self.directory}",
            flush=True,
        )

    def train(self) -> None:
        """Let the agent learn over the updates that are left."""
        left = self.config.updates - self.learner.updates
        if left <= 0:
            return
        done, total = self.learner.updates, self.config.updates
        self.started = time.perf_counter()
        with (
            Curves(self.directory, purge_step=done + 1) as self.curves,
            tqdm(total=total, initial=done, unit="update") as self.bar,
        ):
            self.agent.learn(self.env, left, self._on_episode)

    def teach(self) -> Taught:
        """Teach the segmenter; a part that was complete when a run was killed is not done again."""
        file, config = self.directory / "teaching.pt", self.config
        parts: dict[str, Any] = checkpoint.load(file) if file.is_file() else {}
        rounds = len(folds(self.env.dataset.masks[self.env.labeled], config.segmenter_folds)) + 1 - len(parts)
        with tqdm(total=rounds * config.segmenter_steps, desc="segmenter", unit="step") as bar:
            return teach(
                self.env.dataset,
                self.env.labeled,
                config,
                self.args.seed,
                self.learner.device,
                self.learner.dtype,
                parts,
                on_step=lambda loss: bar.update(),
                on_part=lambda: checkpoint.save(parts, file),
            )

    def _on_episode(self, info: dict[str, Any]) -> None:
        """Log one episode, and put a checkpoint where one is due."""
        update = info["update"]
        row = {k: float(v) for k, v in info.items() if isinstance(v, float | int) and k != "image"}
        self.history.append(row)
        for name, value in row.items():
            self.curves.add_scalar(name if "/" in name else f"train/{name}", value, update)
        shown = {"ae": info["autoencoder_loss"], "l_pred": info["prediction_loss"], "beta": info["beta"]}
        self.bar.set_postfix({k: f"{v:.4f}" for k, v in shown.items() if v is not None})
        self.bar.update()
        if update % 25 == 0:
            self._picture(update)
        if update % self.args.checkpoint_every == 0 or update == self.config.updates:
            self.seconds += time.perf_counter() - self.started
            checkpoint.save(self.state_dict(), self.directory / "checkpoint.pt")
            self.started = time.perf_counter()

    def _picture(self, update: int) -> None:
        """Show the labelled images as they are predicted now."""
        profiles = self.learner.buffer.newest()
        if profiles is None:
            return
        probabilities = (
            torch.sigmoid(predict(self.learner.predictor, profiles, self.learner.dtype)).cpu().numpy()
        )
        shown = self.env.labeled[:3]
        sheet = overlays(self.env.dataset, shown, probabilities[:3], probabilities[:3] >= 0.5)
        self.curves.add_image("labelled images", np.asarray(sheet), update)
