"""Which image to label next: simulated labelling, and what each query of `nbs_env.desk.queries` is worth.

    python -m benchmarks.labels --datasets crackforest,mvtec:screw,magnetic_tile:Blowhole --data-root DATA \\
        --out DIR

Half of the images are put aside for scoring. Of the others, `--masks 2,5` draws two, teaches a segmenter,
lets each query choose three more, and teaches again; `--masks 2,3,4,5` asks after every image. `--reference
10` goes on with the first query to ten masks: whether the others' five are worth them. Further options go to
`nbs train` (default: `--preset quick`). A query sees features of all images, what the segmenter says of them,
and which are labelled; never a mask. Stages that DIR already holds are not computed again. DIR gets
labels.csv, table.md and a picture of each data set's curves.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro

from agents.run import parse
from benchmarks import frame
from benchmarks.frame import Cell, DataArgs, Played
from benchmarks.report import Table, report
from benchmarks.statistics import mean, shown
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import compute_dtype, keep_freed_memory, pick_device, place
from nbs_env.common.pictures import new_figure
from nbs_env.common.runs import check_data, command, digests, plain
from nbs_env.data import AnomalyDataset, load, resize_image, split
from nbs_env.desk import queries
from nbs_env.desk.queries import Numbers
from nbs_env.detect.alarms import image_scores
from nbs_env.detect.config import DetectorConfig
from nbs_env.detect.metrics import pixel_ap, pixel_prf
from nbs_env.detect.segmenter import Segmenter, segment_images
from nbs_env.detect.teaching import teach
from nbs_env.features.encoder import Encoder, describe, pretrained


class Known(NamedTuple):
    """What a query may know of the pool of n images: no mask."""

    features: np.ndarray  # (n, d)
    unsure: np.ndarray  # (n,) `queries.uncertainty`
    scores: np.ndarray  # (n,) image scores
    labeled: np.ndarray  # numbers of the labelled images
    rng: np.random.Generator


QUERIES: dict[str, Callable[[Known, int], Numbers]] = {
    "random": lambda known, n: queries.random(len(known.scores), known.labeled, n, known.rng),
    "most uncertain": lambda known, n: queries.most_uncertain(known.unsure, known.labeled, n),
    "most anomalous": lambda known, n: queries.most_anomalous(known.scores, known.labeled, n),
    "farthest": lambda known, n: queries.farthest(known.features, known.labeled, n),
    "uncertain among diverse": lambda known, n: queries.uncertain_among_diverse(
        known.features, known.unsure, known.labeled, n
    ),
}
FIRST = "random"
"""All begin with the images that this one draws."""


@dataclass(frozen=True, kw_only=True)
class LabelsArgs(DataArgs):
    """What to compare, and where to put it."""

    masks: str = "2,5"
    """Numbers of masks at which a segmenter is taught, rising, separated by commas."""
    queries: str = ",".join(QUERIES)
    """Queries, separated by commas; the first is what the others are compared with."""
    reference: int = 10
    """Masks up to which the first query alone goes on; 0: no further than the others."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        super().__post_init__()
        self.stages(self.chosen()[0])

    def stages(self, query: str) -> list[int]:
        """The numbers of masks that `query` gets.

        Raises:
            RunError: they do not rise.
        """
        words = self.masks.replace(" ", "").split(",")
        stages = [int(word) for word in words if word.isdecimal()]
        if len(stages) < len(words) or stages != sorted(set(stages)) or not stages[0]:
            raise RunError(f"masks is {self.masks!r}; give rising numbers from 1 on, such as 2,5")
        if self.reference and self.reference <= stages[-1]:
            raise RunError(f"reference is {self.reference}, masks {self.masks}; give more masks, or 0")
        return [*stages, self.reference] if self.reference and query == self.chosen()[0] else stages

    def chosen(self) -> list[str]:
        """The queries.

        Raises:
            RunError: there is no such query.
        """
        names = [name.strip() for name in self.queries.split(",")]
        if unknown := [name for name in names if name not in QUERIES]:
            raise RunError(f"queries has {unknown[0]!r}; choose among {', '.join(QUERIES)}")
        return names


def divide(data: AnomalyDataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pool that images are labelled from, and the images for scoring: halves of those of known truth."""
    known = np.random.default_rng(seed).permutation(np.flatnonzero(data.has_mask))
    return np.sort(known[: (len(known) + 1) // 2]), np.sort(known[(len(known) + 1) // 2 :])


def play(
    args: LabelsArgs, dataset: str, seed: int, config: DetectorConfig, device: str, place: Path
) -> list[dict[str, Any]]:
    """All queries from one start; each stage leaves a file in `place`, and a row."""
    keep_freed_memory()
    name, _, category = dataset.partition(":")
    root = None if name == "synthetic" else args.data_root
    data = load(name, root, category=category or None, image_size=config.image_size, seed=seed)
    pool, scored = divide(data, seed)
    stages = args.stages(args.chosen()[0])
    if len(pool) < stages[-1]:
        raise RunError(f"{dataset} has {len(pool)} images to label; ask for fewer masks")
    encoder = Encoder()
    encoder.load_state_dict(pretrained())
    features = describe(encoder, np.stack([resize_image(image, 256) for image in data.images[pool]]))
    place.mkdir(parents=True, exist_ok=True)
    now, known_images = digests(names=data.names, images=data.images, masks=data.masks), place / "images.json"
    if known_images.is_file():
        check_data(json.loads(known_images.read_text(encoding="utf-8")), now, data.name, place)
    checkpoint.save_json(now, known_images)

    def stage(query: str, labeled: np.ndarray) -> dict[str, Any]:
        file = place / f"{query}-{len(labeled)}.json".replace(" ", "-")
        if not file.is_file():
            found = measure(data, pool, labeled, scored, config, seed, pick_device(device))
            checkpoint.save_json({"labeled": [data.names[i] for i in pool[labeled]]} | found, file)
        return json.loads(file.read_text(encoding="utf-8"))

    start, _ = split(_part(data, pool), stages[0], np.random.default_rng(seed))
    begun, rows = stage(FIRST, start), []
    for query in args.chosen():
        labeled, row = start, begun
        for masks in args.stages(query):
            if masks > len(start):
                unsure, scores = np.array(row["unsure"]), np.array(row["scores"])
                known = Known(features, unsure, scores, labeled, np.random.default_rng((seed, masks)))
                labeled = np.append(labeled, QUERIES[query](known, masks - len(labeled)))
                row = stage(query, labeled)
            figures = {column: row[column] for column in ("f1", "ap", "defects", "seconds")}
            rows.append({"dataset": dataset, "seed": seed, "query": query, "masks": masks} | figures)
    return rows


def cells(args: LabelsArgs, config: DetectorConfig, device: str) -> Iterator[Cell]:
    """Every split; more queries go on from the stages that are there."""
    for dataset, seed, _ in args.splits():
        place = args.runs / f"{dataset.replace(':', '')}-{seed}"
        root = args.data_root and args.data_root.resolve()
        settings = plain({"config": vars(config), "masks": args.masks, "data_root": root})
        made = partial(play, args, dataset, seed, config, device, place)
        asked = {"queries": args.queries, "reference": args.reference}
        yield Cell({"dataset": dataset, "seed": seed}, place, settings, made, asked)


def measure(
    data: AnomalyDataset,
    pool: np.ndarray,
    labeled: np.ndarray,
    scored: np.ndarray,
    config: DetectorConfig,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Teach a segmenter with labelled images; figures on those for scoring, and what it says of the pool.

    `pool` and `scored` are indices of images, `labeled` places in the pool.
    """
    start, dtype = time.perf_counter(), compute_dtype(config.precision, device)
    taught = teach(data, pool[labeled], config, seed, device, dtype)
    segmenter = place(Segmenter(), device)
    segmenter.load_state_dict(taught.weights)
    seen, found = (
        segment_images(segmenter, data.images[part], config.segmenter_symmetries) for part in (pool, scored)
    )
    return {
        "f1": pixel_prf(found >= taught.thresholds["segmenter"], data.masks[scored])[2],
        "ap": pixel_ap(found, data.masks[scored]),
        "defects": int(data.anomalous[pool[labeled]].sum()),
        "seconds": time.perf_counter() - start,
        "unsure": queries.uncertainty(seen, taught.thresholds["segmenter"]).tolist(),
        "scores": image_scores(seen).tolist(),
    }


def _part(data: AnomalyDataset, indices: np.ndarray) -> AnomalyDataset:
    """Some of the images."""
    return AnomalyDataset(
        name=data.name,
        images=data.images[indices],
        masks=data.masks[indices],
        has_mask=data.has_mask[indices],
        names=tuple(data.names[i] for i in indices),
        kinds=tuple(data.kinds[i] for i in indices),
    )


def collect(played: Played) -> list[dict[str, Any]]:
    """The rows of all splits."""
    return [row for rows in played.figures.values() for row in rows]


def values(rows: list[dict[str, Any]], figure: str = "f1", **wanted: Any) -> dict[int, float]:
    """A figure by seed, of the rows that have the `wanted` values."""
    return {row["seed"]: row[figure] for row in rows if row.items() >= wanted.items()}


def table(rows: list[dict[str, Any]], args: LabelsArgs) -> Table:
    """Mean F1 at each stage, its difference from the first query's last ones, and defects among the masks."""
    reference = args.chosen()[0]
    stages, last = args.stages(reference), args.stages("")[-1]
    against = [masks for masks in stages if masks >= last]
    head = ["data set", "query", "starts", *(f"F1 with {masks} masks" for masks in stages)]
    head += [f"with {last}, less {reference} with {masks} [95 %]" for masks in against]
    lines = [[*head, f"defects among {last}"]]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for query in args.chosen():
            own = [values(rows, dataset=dataset, query=query, masks=masks) for masks in stages]
            cells = [shown([np.array(list(f1.values()))], mean) if f1 else "-" for f1 in own]
            ours = values(rows, dataset=dataset, query=query, masks=last)
            for masks in against:
                theirs = values(rows, dataset=dataset, query=reference, masks=masks)
                pairs = np.array([ours[seed] - theirs[seed] for seed in ours])
                cells.append(shown([pairs], mean, "+") if (query, last) != (reference, masks) else "-")
            defects = values(rows, "defects", dataset=dataset, query=query, masks=last).values()
            lines.append([dataset, query, str(len(ours)), *cells, f"{np.mean(list(defects)):.1f}"])
    return lines


def curves(rows: list[dict[str, Any]], args: LabelsArgs) -> dict[str, Path]:
    """F1 over the number of masks, a picture for each data set."""
    pictures = {}
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        figure = new_figure(6, 4)
        axis = figure.subplots()
        for query in args.chosen():
            stages = args.stages(query)
            found = [values(rows, dataset=dataset, query=query, masks=masks).values() for masks in stages]
            axis.plot(stages, [np.mean(list(f1)) for f1 in found], marker="o", label=query)
        axis.set(title=dataset, xlabel="masks", ylabel="F1 on images put aside")
        axis.legend()
        pictures[dataset] = args.out / f"labels-{dataset.replace(':', '-')}.png"
        checkpoint.save_figure(figure, pictures[dataset], dpi=110)
    return pictures


@command("interrupted; the same command goes on")
def main(argv: Sequence[str] | None = None) -> None:
    """Compute the stages that are missing, and write the table."""
    args, words = tyro.cli(LabelsArgs, args=argv, description=__doc__, return_unknown_args=True)
    run, config, _ = parse(words)
    if not config.segmenter_steps:
        raise RunError("segmenter_steps is 0; it must be at least 1")
    if config.segmenter_size != "square":
        raise RunError(f"segmenter_size is {config.segmenter_size}; stages are compared at square")
    played = frame.play(cells(args, config, run.device), args, "labels.csv", collect)
    rows, failed = collect(played), played.failed()
    pictures = curves(rows, args)
    report(args.out, "labels", argv, run.device, [table(rows, args)], failed, pictures)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
