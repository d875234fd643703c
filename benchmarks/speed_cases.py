"""What `benchmarks.speed` times: an iteration, its parts, and the baselines, beside their references."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from unittest import mock

import numpy as np
import torch

from agents.heuristics import RandomPatches
from agents.reinforce import Reinforce, ReinforceOptions
from baselines.alcn.trainer import ALCN, ALCNConfig
from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.trainer import DAnoGAN
from benchmarks.d_anogan import LoopedDAnoGAN
from nbs_env import graphs
from nbs_env.autoencoder import AutoencoderTrainer
from nbs_env.common.networks import compute_dtype, initialize
from nbs_env.config import PAPER, PRESETS, Config
from nbs_env.data import AnomalyDataset
from nbs_env.detect.detector import AT_ONCE, Detector
from nbs_env.env import PatchSamplingEnv
from nbs_env.learner import Learner
from nbs_env.predictor import Predictor
from nbs_env.profiles import copy_weights
from nbs_env.walk import CHANGE_IMAGE

LABELED = 5
Task = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Something to time: what the table calls it, the work, and how often it counts."""

    name: str
    task: Task
    reference: str = ""
    """Name of the case of the same group that it is held against."""
    dtype: torch.dtype | None = None
    """Arithmetic of the operations that limit it; None: none is given."""
    moved: float = 0.0
    """Bytes read and written that limit it, instead."""
    share: float = 1.0
    """Factor on the rounds."""


def noise(unlabeled: int, size: int) -> AnomalyDataset:
    """Labelled and unlabelled images of noise (n, size, size, 3), each with an anomalous square."""
    count = LABELED + unlabeled
    masks = np.zeros((count, size, size), bool)
    masks[:, :32, :32] = True
    return AnomalyDataset(
        name="noise",
        images=np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        masks=masks,
        has_mask=np.ones(count, bool),
        names=tuple(map(str, range(count))),
        kinds=("square",) * count,
    )


def make(unlabeled: int, config: Config, device: str) -> PatchSamplingEnv:
    """An environment on noise, after its first reset."""
    env = PatchSamplingEnv(noise(unlabeled, config.image_size), LABELED, config, device=device)
    env.reset(seed=0)
    return env


def play(env: PatchSamplingEnv, rng: np.random.Generator) -> None:
    """One episode, its training included; each ninth action changes the image, as at random."""
    env.reset()
    for number in itertools.count(1):
        if env.step(rng.integers(8) if number % 9 else CHANGE_IMAGE)[2]:
            return


def eagerly(task: Task) -> object:
    """Call `task` without replaying CUDA graphs."""
    with mock.patch.object(graphs, "can_record", return_value=False):
        return task()


def ready(env: PatchSamplingEnv) -> PatchSamplingEnv:
    """`env` with profiles as long as they get, so that the predictor trains at each update."""
    patches = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    for _ in range(env.config.profile_length):
        env.learner.update(patches)
    return env


def step_cases(device: str) -> Iterator[Case]:
    """Steps that are not terminal, a reset now and then among them; so are an image's first visits."""
    env, rng = make(20, PAPER, device), np.random.default_rng(0)
    play(env, rng)
    length = PAPER.cloning_length + PAPER.episode_length
    left = 0

    def step() -> None:
        nonlocal left
        if not left:
            env.reset()
            left = length - 1
        left -= 1
        env.step(rng.integers(9))

    moved = 2 * 4 * 5 * PAPER.window_size**2  # what the agent sees, copied
    yield Case("step, not terminal", step, moved=moved, share=400)


def learner_cases(device: str) -> Iterator[Case]:
    """An update and its parts, against float32 with channels first and without CUDA graphs."""
    patches = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    data = noise(20, 256)
    ways = {"float32, channels first": "float32", "as shipped": "auto"}
    learners = {}
    for way, precision in ways.items():
        config = replace(PRESETS["quick"], precision=precision)  # type: ignore[arg-type]
        labeled = np.arange(LABELED)
        learner = Learner(data.images, labeled, data.masks[:LABELED], config, torch.device(device), 0)
        if way != "as shipped":
            for network in (learner.trainer.network, learner.predictor):
                network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
                # Inputs come with channels last, and either is enough for PyTorch to compute so.
                first = next(network.children())
                first.register_forward_pre_hook(lambda _, inputs: tuple(x.contiguous() for x in inputs))
        for _ in range(config.profile_length):
            eagerly(partial(learner.update, patches))
        learners[way] = learner
    parts: dict[str, Callable[[Learner], Task]] = {
        "update": lambda learner: partial(learner.update, patches),
        "autoencoder": lambda learner: partial(
            learner.trainer.train, torch.from_numpy(patches).permute(0, 3, 1, 2), 8
        ),
        "loss maps of the labelled": lambda learner: partial(learner._measure, learner.labeled),
        "predictor step": lambda learner: learner._train_predictor,
    }
    for part, task in parts.items():
        slow, fast = (f"{part}, {way}" for way in ways)
        plain = partial(eagerly, task(learners["float32, channels first"]))
        yield Case(slow, plain, dtype=torch.float32)
        yield Case(fast, task(learners["as shipped"]), slow, learners["as shipped"].dtype)


def iteration_cases(device: str) -> Iterator[Case]:
    """Whole iterations by the number of unlabelled images, and with all of them measured at every update."""
    rng = np.random.default_rng(1)
    first = "iteration, 20 unlabelled"
    for count in (20, 200, 1000):
        name = f"iteration, {count} unlabelled"
        env = ready(make(count, PAPER, device))
        yield Case(name, partial(play, env, rng), first if name != first else "", env.learner.dtype)
    full = "iteration, 113 unlabelled, full"
    ways = {full: replace(PAPER, evaluation="full"), "iteration, 113 unlabelled, lazy": PAPER}
    for name, config in ways.items():
        reference = full if name != full else ""
        env = ready(make(113, config, device))
        yield Case(name, partial(play, env, rng), reference, env.learner.dtype, share=0.4)


def episode_cases(device: str) -> Iterator[Case]:
    """An iteration that REINFORCE plays and learns from, 64 and 64 patches by one walker or by eight."""
    reference = ""
    for walkers in (1, 8):
        steps = 64 // walkers
        # In warm-up the agent does not learn.
        config = replace(PAPER, warmup_updates=9, cloning_length=steps, episode_length=steps)
        env = ready(make(20, config, device))
        agent = Reinforce(env, 0, ReinforceOptions(walkers=walkers))
        task = partial(agent.learn, env, 1, lambda *_: None)
        name = f"iteration with REINFORCE, {walkers} walker{'s' * (walkers > 1)}"
        yield Case(name, task, reference, env.learner.dtype)
        reference = name


def micro_cases(device: str) -> Iterator[Case]:
    """An episode of the preset `micro` on three labelled images, warm-up over, without and with learning."""
    config = replace(PRESETS["micro"], reinit_period=10_000)  # in warm-up the agent does not learn
    agents = {"random patches": RandomPatches, "REINFORCE": Reinforce}
    for name, kind in agents.items():
        env = PatchSamplingEnv(noise(20, config.image_size), 3, config, device=device)
        env.reset(seed=0)
        agent = kind(env, 0)
        agent.learn(env, config.warmup_updates + 1, lambda *_: None)
        task = partial(agent.learn, env, 1, lambda *_: None)
        yield Case(f"episode of micro, {name}", task, dtype=env.learner.dtype, share=5)


def detector_cases(device: str) -> Iterator[Case]:
    """Masks, with one snapshot."""
    where = torch.device(device)
    dtype = compute_dtype("auto", where)
    trainer = AutoencoderTrainer(200, 1e-4, where, dtype)
    trainer.reinitialize(torch.Generator().manual_seed(0))
    predictor = Predictor(PAPER.profile_length, 2)
    initialize(predictor, torch.Generator().manual_seed(0))
    ring = [copy_weights(trainer.network, dtype)] * PAPER.profile_length
    detector = Detector([ring], [predictor.state_dict()], 256, "auto", where)
    for size in (256, 1024):
        images = np.random.default_rng(0).integers(0, 256, (AT_ONCE, size, size, 3), dtype=np.uint8)
        names = [f"{AT_ONCE} images of {size} pixels, {how}" for how in ("one by one", "Detector.predict")]
        yield Case(names[0], partial(_predict, detector, [[image] for image in images]), "", dtype, share=0.4)
        yield Case(names[1], partial(_predict, detector, [list(images)]), names[0], dtype, share=0.4)


def _predict(detector: Detector, batches: Sequence[Sequence[np.ndarray]]) -> None:
    for batch in batches:
        list(detector.predict(batch))


def d_anogan_cases(device: str) -> Iterator[Case]:
    """Five critic steps and one of all others, 15 clusters, batch 128, against a loop over the clusters."""
    plain = DAnoGANConfig(critic_start=0)
    data = torch.randint(256, (1000, 1, 28, 28), dtype=torch.uint8, device=device)
    fast = compute_dtype("auto", torch.device(device))
    loop = "D-AnoGAN, loop over clusters, float32"
    models = {
        loop: LoopedDAnoGAN(plain, 0, device),
        "D-AnoGAN, at once, float32": DAnoGAN(plain, 0, device),
        "D-AnoGAN, at once, as fast as it goes": DAnoGAN(
            replace(plain, bfloat16=fast == torch.bfloat16), 0, device
        ),
    }
    for name, model in models.items():  # PyTorch cannot count the operations of the gradient penalty
        yield Case(name, partial(model.step, data), loop if name != loop else "")


def alcn_cases(device: str) -> Iterator[Case]:
    """Algorithm 1 on a batch of 64, the paper's sizes."""
    fast = compute_dtype("auto", torch.device(device))
    images = torch.randn((64, 1, 28, 28), device=device)
    slow = "ALCN step, float32"
    yield Case(slow, partial(ALCN(ALCNConfig(), 0, device).step, images), dtype=torch.float32)
    model = ALCN(ALCNConfig(bfloat16=fast == torch.bfloat16), 0, device)
    yield Case("ALCN step, as fast as it goes", partial(model.step, images), slow, fast)


GROUPS: dict[str, Callable[[str], Iterator[Case]]] = {
    "step": step_cases,
    "learner": learner_cases,
    "iteration": iteration_cases,
    "episode": episode_cases,
    "micro": micro_cases,
    "detector": detector_cases,
    "d_anogan": d_anogan_cases,
    "alcn": alcn_cases,
}
