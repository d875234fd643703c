"""Which soft targets to teach with: samplers in `nbs_env/PatchTeaching-v0`, compared.

    python -m benchmarks.teaching --dataset crackforest --data-root DATA --seeds 3 --out DIR

Each sampler plays `--config.updates` episodes on the split of each seed; the best segmenter of its complete
cycles, by the loss of the labelled images left out, is scored on the unlabelled ones. Beside them: the first
round, and `labels-alone`, as many steps without a patch. `lowest-loss` takes the most confident patches,
`highest-loss` the most uncertain ones. What DIR holds is not computed again; it gets results.csv and
table.md.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from nbs_env.teaching_env import TEACHING, PatchTeachingEnv, TeachingLearner

from agents.base import file_name
from agents.load import agent_class
from agents.run import RunArgs, read_images
from benchmarks.engine import EngineArgs, check, gather, is_made
from benchmarks.report import INTERVALS, finish, paired
from benchmarks.tables import markdown
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import keep_freed_memory, pick_device, place
from nbs_env.common.runs import command, plain
from nbs_env.config import Config
from nbs_env.detect.metrics import pixel_ap, pixel_prf
from nbs_env.detect.segmenter import Segmenter
from nbs_env.detect.teaching import bounded_threshold

FIRST, LABELS = "first round", "labels-alone"


@dataclass(frozen=True, kw_only=True)
class TeachingArgs(EngineArgs):
    """What to compare, and where to put it."""

    out: Path
    """Folder for results and table."""
    agents: str = "random-patches,lowest-loss,highest-loss,reinforce"
    """Samplers, separated by commas; the first is what the others are compared with."""
    dataset: str = "synthetic"
    """Data set."""
    data_root: Path | None = None
    """Its folder, or the one that holds it."""
    category: str | None = None
    """Category, where the data set has some."""
    labeled: int = 5
    """Labelled images, a part of which is left out."""
    device: str = "auto"
    """cpu, cuda or auto."""
    config: Config = field(default_factory=lambda: TEACHING)
    """Settings of the environment."""


@dataclass(frozen=True)
class Job:
    """One sampler on one split."""

    name: str
    run: RunArgs
    config: Config
    file: Path


def play(job: Job) -> None:
    """Let a sampler teach and write its figures, unless they are there.

    Raises:
        RunError: they were made with other settings, or no cycle is complete.
    """
    now = plain({"run": asdict(job.run), "config": asdict(job.config)})
    if is_made(job.file, now):
        return
    keep_freed_memory()
    data, labeled, _ = read_images(job.run, job.config)
    names = [data.names[i] for i in labeled]
    env = PatchTeachingEnv(data, names, job.config, job.run.device)
    learner: TeachingLearner = env.learner
    env.reset(seed=job.run.seed)
    start = time.perf_counter()
    if job.name == LABELS:
        side = job.config.patch_size
        for _ in range(job.config.updates):
            learner.update(np.zeros((0, side, side, 3), np.uint8), np.zeros((0, 3), int))
    else:
        agent = agent_class(job.name)(env, seed=job.run.seed)
        agent.learn(env, job.config.updates, lambda info: None)
    seconds = time.perf_counter() - start
    assert learner.graduate is not None, "the command asks for a complete cycle"
    graduate = place(Segmenter(), learner.device)
    graduate.load_state_dict(learner.graduate)
    figures = score(env, learner.look(graduate)) | {"seconds": seconds}
    job.file.parent.mkdir(parents=True, exist_ok=True)
    content = {"settings": now, "figures": figures, "first": score(env, learner.targets)}
    checkpoint.save_json(content, job.file)


def score(env: PatchTeachingEnv, found: np.ndarray) -> dict[str, float]:
    """F1 and AP of probabilities (n, H, W) on the unlabelled images whose truth is known.

    The threshold is `bounded_threshold` of the labelled images left out.
    """
    data, left_out = env.dataset, env.learner.left_out
    scored = env.unlabeled[data.has_mask[env.unlabeled]]
    probabilities = found.astype(np.float32)
    weight = float(env.learner.student.weight)
    threshold = bounded_threshold(probabilities[left_out], data.masks[left_out], weight)
    truth = data.masks[scored]
    f1 = pixel_prf(probabilities[scored] >= threshold, truth)[2]
    return {"f1": f1, "ap": pixel_ap(probabilities[scored], truth) or 0.0}


@command("interrupted; the same command goes on")
def main() -> None:
    """Compute what is missing, and write the table."""
    args = tyro.cli(TeachingArgs, description=__doc__)
    check(args)
    config, names = args.config, [LABELS, *args.agents.split(",")]
    if config.updates < config.reinit_period:
        raise RunError(
            f"updates is {config.updates}; choose at least a cycle's, reinit_period ({config.reinit_period})"
        )
    for name in names[1:]:
        agent_class(name)
    jobs = []
    for seed in range(args.seeds):
        run = RunArgs(
            dataset=args.dataset,
            data_root=args.data_root and args.data_root.resolve(),
            category=args.category,
            labeled=(str(args.labeled),),
            seed=seed,
            device=args.device,
        )
        for name in names:
            file = args.out.resolve() / "cells" / f"{seed}-{file_name(name)}.json"
            jobs.append(Job(name, run, config, file))
    tasks = [(f"{job.name}, seed {job.run.seed}", partial(play, job), job.file) for job in jobs]
    contents, failed = gather(tasks, args)
    found = {}
    for index, content in contents.items():
        found[jobs[index].name, jobs[index].run.seed] = content["figures"]
        found[FIRST, jobs[index].run.seed] = content["first"]
    rows = [{"sampler": name, "seed": seed} | figures for (name, seed), figures in found.items()]
    checkpoint.save_csv(rows, args.out / "results.csv")
    table = markdown(paired(found, [FIRST, *names], names[1]))
    finish(args.out, "teaching", str(pick_device(args.device)), [table, INTERVALS], failed)


if __name__ == "__main__":
    main()
