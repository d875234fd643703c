"""One whole run: environment and agent in, detector, figures and pictures out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from agents.base import AgentError, agent_class, check_state
from agents.scoring import finish, overlays, table
from nbs_env import checkpoint
from nbs_env.autoencoder import AutoencoderTrainer, loss_maps
from nbs_env.config import Config
from nbs_env.data import load, split
from nbs_env.env import PatchSamplingEnv, pick_device
from nbs_env.networks import keep_freed_memory
from nbs_env.predictor import Predictor, logits, predict


class RunError(ValueError):
    """A run that cannot start; the message names the file or value and the remedy."""


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
    run["data_root"] = str(args.data_root.resolve()) if args.data_root else None
    run["labeled"] = list(args.labeled)
    return {"run": run, "config": asdict(config), "agent": asdict(options) if options else {}}


def run(args: RunArgs, config: Config, options: Any = None) -> dict[str, Any]:
    """Train, calibrate, score and save; the content of metrics.json.

    Args:
        args: what to run.
        config: settings of the environment.
        options: the agent's options, an instance of its class's `Options`.

    Raises:
        RunError, ConfigError, DataError, AgentError, CheckpointError: before any training.
        TrainingError: a loss is no longer finite.
    """
    directory = args.directory()
    for name, least in (("seed", 0), ("checkpoint_every", 1)):
        if getattr(args, name) < least:
            raise RunError(f"{name} is {getattr(args, name)}; it must be at least {least}")
    make_agent = agent_class(args.agent)
    device = pick_device(args.device)
    if config.updates < config.profile_length:
        raise RunError(
            f"updates is {config.updates}; a detector needs a whole profile, so choose at least "
            f"profile_length ({config.profile_length})"
        )
    stored = _prepare(directory, args, settings(args, config, options))
    keep_freed_memory()
    dataset = load(
        args.dataset,
        args.data_root,
        category=args.category,
        image_size=config.image_size,
        seed=args.seed,
        difficulty=args.difficulty,
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
    env = PatchSamplingEnv(dataset, [dataset.names[i] for i in labeled], config, device=str(device))
    env.reset(seed=args.seed)
    agent = make_agent(env, seed=args.seed, options=options)
    check_state(agent)
    if not args.resume:
        directory.mkdir(parents=True, exist_ok=True)
        checkpoint.save_json(settings(args, config, options), directory / "config.json")
    session = _Session(args, directory, env, agent, settings(args, config, options))
    if stored is not None:
        session.load_state_dict(stored)
    session.announce()
    session.train()
    if env.learner.updates < config.updates:
        raise AgentError(
            f"agent {args.agent!r} stopped after {env.learner.updates} of {config.updates} updates; its "
            "learn has to play all episodes that it is asked for"
        )
    start = time.perf_counter()
    metrics = finish(env, directory, session.history)
    seconds = {"training_seconds": session.seconds, "masks_seconds": time.perf_counter() - start}
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
    again = replace(args, resume=True)
    if not (directory / "metrics.json").is_file():
        return run(again, config, options)
    _prepare(directory, again, settings(args, config, options))
    return json.loads((directory / "metrics.json").read_text())


def stored_run(directory: Path) -> tuple[RunArgs, Config, dict[str, Any]] | None:
    """What the run in `directory` was started with, the agent's options last; None if there is no run.

    Raises:
        RunError: its config.json cannot be read.
    """
    file = directory / "config.json"
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text())
        run, config, options = stored["run"], Config(**stored["config"]), dict(stored["agent"])
        root, labeled = run.pop("data_root"), tuple(run.pop("labeled"))
        args = RunArgs(**run, data_root=root and Path(root), labeled=labeled, run_dir=directory, resume=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{file} does not hold the settings of a run; choose another --run-dir") from error
    return args, config, options


def _prepare(directory: Path, args: RunArgs, now: dict[str, Any]) -> dict[str, Any] | None:
    """Check the run directory; the checkpoint to resume from, or None."""
    if not args.resume:
        if directory.exists() and (
            not directory.is_dir() or any(file.suffix != ".part" for file in directory.iterdir())
        ):
            raise RunError(f"{directory} already holds a run; choose another --run-dir, or --resume it")
        return None
    started = stored_run(directory)
    if started is None:
        raise RunError(f"{directory} holds no run to resume; leave --resume out, or check --run-dir")
    source, stored = directory / "config.json", None
    before = settings(*started[:2], None) | {"agent": started[2]}
    if (directory / "checkpoint.pt").exists():  # absent if killed before the first: begin again
        source = directory / "checkpoint.pt"
        stored = checkpoint.load(source)
        before = json.loads(stored.get("settings", "{}"))
    before = json.loads(json.dumps(before))
    for group, values in json.loads(json.dumps(now)).items():
        for name, value in values.items():
            if name not in before.get(group, {}) or before[group][name] != value:
                raise RunError(
                    f"{source} was made with {name} = {before.get(group, {}).get(name)}, not {value}; "
                    "resume with the same settings, or choose another --run-dir"
                )
    return stored


class _Session:
    """The running state of one run: what is logged, checkpointed and finally scored."""

    def __init__(
        self, args: RunArgs, directory: Path, env: PatchSamplingEnv, agent: Any, run_settings: dict[str, Any]
    ) -> None:
        self.args, self.directory, self.env, self.agent = args, directory, env, agent
        self.learner, self.config = env.learner, env.config
        self.settings = json.dumps(run_settings)
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        data = env.dataset
        digest = hashlib.sha256(json.dumps([data.names, env.labeled.tolist()]).encode())
        for array in (data.images, data.masks):
            digest.update(array[env.labeled].tobytes())
        self.images = digest.hexdigest()
        self.arithmetic = f"{self.learner.device.type}, {str(self.learner.dtype).removeprefix('torch.')}"

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "settings": self.settings,
            "learner": self.learner.state_dict(),
            "agent": self.agent.state_dict(),
            "images": self.images,
            "arithmetic": self.arithmetic,
            "env_rng": json.dumps(self.env.np_random.bit_generator.state),
            "history": json.dumps(self.history),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            RunError: the images or the labelled masks are no longer the same.
        """
        if state["images"] != self.images:
            raise RunError(
                f"{self.env.dataset.name} no longer holds the images and labelled masks that "
                f"{self.directory} was begun with; restore them, or choose another --run-dir"
            )
        if state["arithmetic"] != self.arithmetic:
            print(f"note: begun on {state['arithmetic']}, so the run will not end with the same bits")
        self.learner.load_state_dict(state["learner"])
        self.agent.load_state_dict(state["agent"])
        self.env.np_random.bit_generator.state = json.loads(state["env_rng"])
        self.history = json.loads(state["history"])
        self.seconds = state["seconds"]

    def announce(self) -> None:
        """Say what runs, on what, and for about how long."""
        data, config, device = self.env.dataset, self.config, self.learner.device
        threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
        left = config.updates - self.learner.updates
        print(
            f"{self.args.agent} on {data.name}: {len(data)} images, {len(self.env.labeled)} labelled "
            f"({', '.join(data.names[i] for i in self.env.labeled)}); preset {self.args.preset}, "
            f"{left} of {config.updates} updates to go\n"
            f"on {self.arithmetic}{threads}, about "
            f"{max(1, round(self._estimate(left) / 60))} minutes; everything goes to {self.directory}",
            flush=True,
        )

    @torch.random.fork_rng(devices=[])  # new networks draw from the generator that some agents draw from
    def _estimate(self, updates: int) -> float:
        """Seconds that `updates` updates and the final masks will take, from timing each part once."""
        config, device, dtype = self.config, self.learner.device, self.learner.dtype
        trainer = AutoencoderTrainer(config.bottleneck_channels, config.autoencoder_lr, device, dtype)
        patches = torch.zeros(
            (config.minibatch_size, 3, config.patch_size, config.patch_size), dtype=torch.uint8
        )
        step = _seconds(lambda: trainer.train(patches, config.minibatch_size))
        one_map = _seconds(lambda: loss_maps(trainer.network, self.learner.pick(np.array([0])), dtype))
        crop = config.predictor_crop or config.image_size
        profiles = torch.zeros((config.minibatch_size, config.profile_length, crop, crop), device=device)
        predictor = Predictor(config.profile_length, config.predictor_width).to(device)

        def predictor_step() -> None:
            logits(predictor, profiles, dtype).sum().backward()

        count = len(self.env.dataset)
        walkers = getattr(getattr(self.agent, "options", None), "walkers", 1)
        visited = config.episode_length / 9 if config.training_images == "all" else 0
        measured = count if config.evaluation == "full" else len(self.env.labeled) + walkers * visited
        steps = config.cloning_length + config.episode_length
        predictor_seconds = _seconds(predictor_step)
        images_a_step = config.minibatch_size * (crop / config.image_size) ** 2
        symmetries = 8 * predictor_seconds / 3 / images_a_step  # forward alone, an image
        update = (
            step * walkers * config.episode_length / config.minibatch_size
            + 1.25 * one_map * measured  # shifted grids have more tiles
            + predictor_seconds * config.predictor_updates
            + 0.006 * steps * walkers  # acting and learning of the agent, on two cores
        )
        snapshots = min(config.snapshot_cycles, -(-config.updates // config.reinit_period))
        mask = snapshots * (config.profile_length * 1.25 * one_map + symmetries) + 0.3
        return updates * update + count * mask

    def train(self) -> None:
        """Let the agent learn over the updates that are left."""
        left = self.config.updates - self.learner.updates
        if left <= 0:
            return
        done, total = self.learner.updates, self.config.updates
        self.started = time.perf_counter()
        with (
            SummaryWriter(str(self.directory), purge_step=done + 1) as self.writer,
            tqdm(total=total, initial=done, unit="update") as self.bar,
        ):
            self.agent.learn(self.env, left, self._on_episode)

    def _on_episode(self, info: dict[str, Any]) -> None:
        """Log one episode, and put a checkpoint where one is due."""
        update = info["update"]
        row = {k: float(v) for k, v in info.items() if isinstance(v, float | int) and k != "image"}
        self.history.append(row)
        for name, value in row.items():
            self.writer.add_scalar(name if "/" in name else f"train/{name}", value, update)
        shown = {"ae": info["autoencoder_loss"], "l_pred": info["prediction_loss"], "beta": info["beta"]}
        self.bar.set_postfix({k: f"{v:.4f}" for k, v in shown.items() if v is not None})
        self.bar.update()
        if update % 25 == 0:
            self._picture(update)
        if update % self.args.checkpoint_every == 0 or update == self.config.updates:
            self.seconds += time.perf_counter() - self.started
            self.writer.flush()  # what a checkpoint has behind it is on disc
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
        self.writer.add_image("labelled images", np.asarray(sheet), update, dataformats="HWC")


def _seconds(function: Callable[[], object]) -> float:
    """Seconds of a second call of `function`."""
    function()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
