"""Neural batch sampling: a Gymnasium environment for picking training patches, and what makes masks of it."""

from gymnasium.envs.registration import register

from nbs_env.config import PRESETS, Config
from nbs_env.env import PatchSamplingEnv
from nbs_env.vector import PatchSamplingVectorEnv
from nbs_env.wrappers import SkipWarmup

register(
    id="nbs_env/PatchSampling-v0",
    entry_point="nbs_env.env:PatchSamplingEnv",
    vector_entry_point="nbs_env.vector:PatchSamplingVectorEnv",
)

__all__ = ["PRESETS", "Config", "PatchSamplingEnv", "PatchSamplingVectorEnv", "SkipWarmup"]
