"""Size and speed of ALCN in the form of the paper's Table 5: `python -m benchmarks.alcn`.

Inference with `DAE + ALCN` also makes and blends the noise, as with `test_noise`. The paper does not say how
large its batches are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro

from baselines.alcn.trainer import ALCN, ALCNConfig
from nbs_env.common.networks import pick_device
from nbs_env.common.runs import command


@dataclass(frozen=True)
class Args:
    """What to time."""

    batch_size: int = 64
    """Images of a batch."""
    repeats: int = 20
    """Batches to time, after one for warming up."""
    device: str = "auto"
    """cpu, cuda or auto."""


def milliseconds(function: Callable[[], object], repeats: int, device: str) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[1:]))


def denoise(model: ALCN, images: torch.Tensor) -> torch.Tensor:
    """What a batch takes that gets noise of its own."""
    with torch.no_grad():
        return model.reconstruct(model.corrupt(images, model.draw_alpha()))


@command()
def main() -> None:
    """Measure and print the table."""
    args = tyro.cli(Args, description=__doc__)
    device = str(pick_device(args.device))
    print(f"{device}, {torch.get_num_threads()} threads, batches of {args.batch_size}, medians\n")
    print("| | parameters (million) | inference (ms) | training step (ms) |\n| --- | --- | --- | --- |")
    for channels, data in ((1, "28x28 grey, MNIST"), (3, "28x28 RGB, CIFAR-10")):
        for noise, name in (("none", "DAE"), ("alcn", "DAE + ALCN")):
            model = ALCN(ALCNConfig(channels=channels, noise=noise), 0, device)  # type: ignore[arg-type]
            images = torch.zeros((args.batch_size, channels, 28, 28), device=device)
            size = sum(p.numel() for network in model.networks.values() for p in network.parameters())
            train = milliseconds(partial(model.step, images), args.repeats, device)
            infer = milliseconds(partial(denoise, model, images), args.repeats, device)
            print(f"| {name}, {data} | {size / 1e6:.2f} | {infer:.2f} | {train:.1f} |", flush=True)
    print("\nPaper, GTX 1080 Ti: DAE 1.12 million, 2.36 / 2.73 ms; DAE + ALCN 9.87 million, 4.54 / 5.23 ms.")


if __name__ == "__main__":
    main()
