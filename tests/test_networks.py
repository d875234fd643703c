"""Weights come from a generator alone, in PyTorch's own distribution."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from agents.policy import Policy
from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.trainer import DAnoGAN
from nbs_env.autoencoder import Autoencoder
from nbs_env.common.networks import compute_dtype, initialize, place
from nbs_env.detect.segmenter import Segmenter
from nbs_env.features.encoder import Encoder
from nbs_env.predictor import Predictor

CPU = torch.device("cpu")


def test_initialisation_is_pytorchs_own_from_a_generator(same_bits: Callable[..., None]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = Autoencoder(16)
    network = Autoencoder(16)
    untouched = torch.get_rng_state()
    initialize(network, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), untouched)
    same_bits(dict(network.state_dict()), dict(expected.state_dict()))


def test_each_initialisation_is_a_new_draw_and_the_old_state_is_gone() -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    initialize(network, generator)
    before = network.state_dict()["0.weight"].clone()
    network(torch.rand(2, 3, 8, 8))  # moves the running statistics
    initialize(network, generator)
    after = network.state_dict()
    assert not torch.equal(after["0.weight"], before)
    assert after["1.running_mean"].eq(0).all()
    assert after["1.running_var"].eq(1).all()


@pytest.mark.parametrize(
    "make",
    [
        partial(Autoencoder, 8, 4),
        partial(Predictor, 3, 1),
        Encoder,
        Segmenter,
        partial(Policy, torch.Generator()),
        partial(DAnoGAN, DAnoGANConfig(width=0.1, clusters=2), 0),
    ],
)
def test_a_new_network_costs_the_global_generator_no_draw(make: Callable[[], object]) -> None:
    before = torch.get_rng_state()
    make()
    assert torch.equal(torch.get_rng_state(), before)


def test_placed_networks_are_channels_last() -> None:
    weights = place(Autoencoder(16), CPU).state_dict()
    assert weights["encoder.2.0.weight"].is_contiguous(memory_format=torch.channels_last)


def test_compute_dtype() -> None:
    assert compute_dtype("float32", CPU) == torch.float32
    assert compute_dtype("bfloat16", CPU) == torch.bfloat16
    assert compute_dtype("auto", CPU) in (torch.float32, torch.bfloat16)


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_kept_memory_is_not_fetched_anew() -> None:
    """In a process of its own, which it concerns whole: pages are fetched once, not at every turn."""
    turns = """
import resource, torch
from nbs_env.common.networks import keep_freed_memory
keep_freed_memory()
faults = []
for turn in range(6):
    kept = [torch.zeros(2**22) for _ in range(6)]  # 16 MiB each
    del kept
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
assert faults[-1] - faults[3] < 100, faults
"""
    subprocess.run([sys.executable, "-c", turns], check=True)
