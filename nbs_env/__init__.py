"""Neural batch sampling: a Gymnasium environment for picking training patches, and what makes masks of it."""

import os
from functools import partial

import torch
from gymnasium.envs.registration import register

from nbs_env.config import PRESETS, Config
from nbs_env.env import PatchSamplingEnv
from nbs_env.vector import PatchSamplingVectorEnv
from nbs_env.wrappers import SkipWarmup

if hasattr(os, "register_at_fork"):  # not on Windows
    # OpenMP's threads stay behind in the parent, and a forked child would wait for them for ever.
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))

register(
    id="nbs_env/PatchSampling-v0",
    entry_point="nbs_env.env:PatchSamplingEnv",
    vector_entry_point="nbs_env.vector:PatchSamplingVectorEnv",
)

__all__ = ["PRESETS", "Config", "PatchSamplingEnv", "PatchSamplingVectorEnv", "SkipWarmup"]
