"""What sampling can be worth at all: fixed samplers searched on labelled images, judged on others.

    python -m benchmarks.sampling --dataset crackforest --data-root DATA --candidates 32 --seeds 10 --out DIR

Candidates are settings of `agents.heuristics.Weighted`: extremes that have names, then random ones. Each
plays the first `--splits` seeds with some of the labelled images left out, and the best is the one with the
highest mean AP on these. It, or the best `--judged`, plays `--seeds` further seeds with all labelled images,
as random patches do on the same splits; all are scored on the unlabelled images, but for those that the
search had the masks of.

Further options go to `train.py` (default: `--preset micro`). What DIR holds is not computed again. DIR gets
results.csv and table.md. `--engine ray` spreads the runs over a Ray cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from agents.scoring import assemble

import train
from agents.heuristics import Weighted, WeightedOptions
from agents.run import RunArgs, read_images, settings
from benchmarks.engine import EngineArgs, check, gather, is_made
from benchmarks.report import INTERVALS, finish, paired
from benchmarks.tables import markdown
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import keep_freed_memory, pick_device
from nbs_env.common.runs import at_least, command, digests
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.detect.detector import AT_ONCE
from nbs_env.detect.metrics import best_threshold, pixel_ap, pixel_prf
from nbs_env.env import PatchSamplingEnv

RANDOM = "random patches"
CORNERS = {
    RANDOM: WeightedOptions(jump=100),
    "random actions": WeightedOptions(),
    "no defects": WeightedOptions(defects=-12),
    "defects alone": WeightedOptions(defects=12),
    "highest loss": WeightedOptions(loss=12),
    "lowest loss": WeightedOptions(loss=12, loss_quantile=0),
    "covering": WeightedOptions(cover=12),
    "revisiting": WeightedOptions(cover=-12),
    "one image": WeightedOptions(jump=-12),
    "no defects, later alone": WeightedOptions(defects=-12, late=-1),
}
"""Extremes of the family, by what the tables call them."""
RANGES = {
    "defects": (-6.0, 6.0),
    "loss": (0.0, 6.0),
    "loss_quantile": (0.0, 1.0),
    "cover": (-6.0, 6.0),
    "jump": (-4.0, 8.0),
    "late": (-1.0, 1.0),
}
"""What random candidates are drawn from, uniformly."""
Figures = dict[str, float]
Samplers = dict[str, WeightedOptions]


@dataclass(frozen=True, kw_only=True)
class SamplingArgs(EngineArgs):
    """What to search, and where to put it."""

    out: Path
    """Folder for results and table."""
    seeds: int = 10
    """Seeds that the best sampler and random patches are judged on, those after the search's."""
    splits: int = 2
    """Seeds, and so splits, of the search: 0, 1, ..."""
    left_out: int = 2
    """Labelled images of a split of the search that only its score is made of."""
    candidates: int = 32
    """Samplers to try, the named extremes first."""
    judged: int = 1
    """The best of the search that are judged. With all of them the table says what the family can be worth,
    but its best row is then chosen by what it is scored on."""

    def check(self) -> None:
        """Refuse what could not run."""
        check(self)
        at_least(1, splits=self.splits, left_out=self.left_out, judged=self.judged)
        at_least(2, candidates=self.candidates)


@dataclass(frozen=True)
class Cell:
    """One sampler on one split."""

    name: str
    run: RunArgs
    config: Config
    options: WeightedOptions
    file: Path
    left_out: int = 0
    """Labelled images to score, in the search; 0: the unlabelled ones are scored."""
    searched: tuple[str, ...] = ()
    """Digests of images that are not scored, because the search had their masks."""


def candidates(count: int) -> Iterator[tuple[str, WeightedOptions]]:
    """The first `count` samplers by name; the same ones for any count."""
    yield from list(CORNERS.items())[:count]
    for number in range(len(CORNERS), count):
        rng = np.random.default_rng(number)
        drawn = {name: float(rng.uniform(*limits)) for name, limits in RANGES.items()}
        yield f"random {number}", WeightedOptions(**{name: round(value, 3) for name, value in drawn.items()})


def cells(args: SamplingArgs, words: list[str], seeds: range, samplers: Samplers) -> list[Cell]:
    """Samplers on the splits of seeds, of the search or after it; all of a seed one after another."""
    line = ["--preset", "micro", "--segmenter-steps", "0", *words, "--agent", "weighted"]
    run, config, _ = train.parse(line)
    return [_cell(args, replace(run, seed=s), config, *each) for s in seeds for each in samplers.items()]


def _cell(args: SamplingArgs, run: RunArgs, config: Config, name: str, options: WeightedOptions) -> Cell:
    file = args.out.resolve() / "cells" / f"{run.seed}-{name.replace(', ', '-').replace(' ', '-')}.json"
    left_out = args.left_out if run.seed < args.splits else 0
    return Cell(name, run, config, options, file, left_out)


def digest(image: np.ndarray) -> str:
    """What an image is known by, whatever it is called."""
    return digests(image=image)["image"]


def search_split(
    dataset: AnomalyDataset, labeled: np.ndarray, left_out: int, seed: int
) -> tuple[AnomalyDataset, np.ndarray, np.ndarray]:
    """The images without any mask but the labelled ones', those that stay labelled, and those left out.

    Raises:
        RunError: there are too few labelled images with defects to leave some out.
    """
    masks = np.zeros_like(dataset.masks)
    masks[labeled] = dataset.masks[labeled]
    has_mask = np.isin(np.arange(len(dataset)), labeled)
    rng = np.random.default_rng(seed)
    for _ in range(100):
        drawn = rng.permutation(labeled)
        kept, out = np.sort(drawn[left_out:]), np.sort(drawn[:left_out])
        if masks[kept].any() and masks[out].any():
            return replace(dataset, masks=masks, has_mask=has_mask, originals=()), kept, out
    raise RunError(
        f"left_out is {left_out}, of {len(labeled)} labelled images; both parts need one with a defect, so "
        "label more or leave fewer out"
    )


def play(job: Cell) -> None:
    """Train under a sampler and write its figures, unless they are there.

    Raises:
        RunError: they were made with other settings, or the images do not suffice.
    """
    more = {"left_out": job.left_out, "searched": list(job.searched)}
    now = settings(job.run, job.config, job.options) | more
    if is_made(job.file, now):
        return
    keep_freed_memory()
    data, labeled, scored = read_images(job.run, job.config)
    if job.left_out:
        data, labeled, scored = search_split(data, labeled, job.left_out, job.run.seed)
    scored = np.array([i for i in scored if data.has_mask[i] and digest(data.images[i]) not in job.searched])
    if not len(scored) or not data.masks[scored].any():
        raise RunError("no image with a defect is left to score; take a larger data set, or fewer splits")
    env = PatchSamplingEnv(data, [data.names[i] for i in labeled], job.config, job.run.device)
    env.reset(seed=job.run.seed)
    Weighted(env, job.run.seed, job.options).learn(env, job.config.updates, lambda info: None)
    job.file.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_json({"settings": now, "figures": score(env, scored)}, job.file)


def score(env: PatchSamplingEnv, scored: np.ndarray) -> Figures:
    """F1 at the labelled images' best threshold and AP of the loss profiles' probabilities, without CRF."""
    detector, data = assemble(env), env.dataset

    def probabilities(indices: np.ndarray) -> np.ndarray:
        parts = np.split(indices, range(AT_ONCE, len(indices), AT_ONCE))
        return np.concatenate([detector.from_profiles(env.learner.best_profiles(part)) for part in parts])

    threshold = best_threshold(probabilities(env.labeled), data.masks[env.labeled])
    found, truth = probabilities(scored), data.masks[scored]
    return {"f1": pixel_prf(found >= threshold, truth)[2], "ap": pixel_ap(found, truth) or 0.0}


def compute(todo: list[Cell], args: SamplingArgs) -> tuple[dict[tuple[str, int], Figures], list[str]]:
    """Play what is missing; figures by sampler and seed, and what failed."""
    tasks = [(f"{job.name}, seed {job.run.seed}", partial(play, job), job.file) for job in todo]
    contents, failed = gather(tasks, args)
    found = {(todo[index].name, todo[index].run.seed): each["figures"] for index, each in contents.items()}
    return found, failed


def ranking(found: dict[tuple[str, int], Figures], splits: int) -> list[tuple[str, float]]:
    """Samplers with the mean AP of images left out, the best first; only those that all splits have."""
    names = dict.fromkeys(name for name, _ in found)
    complete = [name for name in names if all((name, seed) in found for seed in range(splits))]
    means = {name: float(np.mean([found[name, seed]["ap"] for seed in range(splits)])) for name in complete}
    return sorted(means.items(), key=lambda each: -each[1])


def ranks(ranked: list[tuple[str, float]], samplers: Samplers) -> list[list[str]]:
    """The ten best samplers and random patches, with their settings."""
    names = [field.name for field in fields(WeightedOptions)]
    lines = [["rank", "sampler", *names, "AP, left out"]]
    for rank, (name, ap) in enumerate(ranked, 1):
        if rank <= 10 or name == RANDOM:
            values = [f"{value:g}" for value in asdict(samplers[name]).values()]
            lines.append([str(rank), name, *values, f"{ap:.3f}"])
    return lines


@command("interrupted; the same command goes on")
def main() -> None:
    """Search, judge, and write the tables."""
    args, words = tyro.cli(SamplingArgs, description=__doc__, return_unknown_args=True)
    args.check()
    samplers = dict(candidates(args.candidates))
    search = cells(args, words, range(args.splits), samplers)
    found, failed = compute(search, args)
    ranked = ranking(found, args.splits)
    others = [name for name, _ in ranked if name != RANDOM]
    if not others:
        raise RunError("no sampler could be tried: " + "; ".join(failed))
    known = []
    for run in {job.run.seed: job.run for job in search}.values():
        data, labeled, _ = read_images(run, search[0].config)
        known += [digest(data.images[i]) for i in labeled]
    seeds = range(args.splits, args.splits + args.seeds)
    best = {name: samplers[name] for name in (RANDOM, *others[: args.judged])}
    judged = cells(args, words, seeds, best)
    judged_found, more = compute([replace(job, searched=tuple(known)) for job in judged], args)
    rows = [
        {"sampler": name, "seed": seed, "part": part} | figures
        for part, some in (("search", found), ("judged", judged_found))
        for (name, seed), figures in some.items()
    ]
    checkpoint.save_csv(rows, args.out / "results.csv")
    parts = [
        markdown(paired(judged_found, list(best), RANDOM)),
        f"{INTERVALS}\n\nThe search, {args.left_out} labelled images left out, {args.splits} splits:\n",
        markdown(ranks(ranked, samplers)),
    ]
    finish(args.out, "sampling", str(pick_device(search[0].run.device)), parts, failed + more)


if __name__ == "__main__":
    main()
