"""Neural batch sampling: a Gymnasium environment for picking training patches, and what makes masks of it."""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from nbs_env.config import PRESETS, Config
    from nbs_env.env import PatchSamplingEnv
    from nbs_env.vector import PatchSamplingVectorEnv
    from nbs_env.wrappers import SkipWarmup

_HOMES = {
    "PRESETS": "config",
    "Config": "config",
    "PatchSamplingEnv": "env",
    "PatchSamplingVectorEnv": "vector",
    "SkipWarmup": "wrappers",
}


def __getattr__(name: str) -> Any:
    """Import on first use: PyTorch takes seconds, and what shows images need not wait for it."""
    if name in _HOMES:
        return getattr(import_module(f"nbs_env.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'nbs_env' has no attribute {name!r}")


def _in_a_forked_child() -> None:
    """OpenMP's threads stay behind in the parent, and a forked child would wait for them for ever."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_in_a_forked_child)

register(
    id="nbs_env/PatchSampling-v0",
    entry_point="nbs_env.env:PatchSamplingEnv",
    vector_entry_point="nbs_env.vector:PatchSamplingVectorEnv",
)
register(
    id="nbs_env/PatchSamplingMicro-v0",
    entry_point="nbs_env.env:PatchSamplingEnv",
    vector_entry_point="nbs_env.vector:PatchSamplingVectorEnv",
    kwargs={"config": "micro", "labeled": 3},
)
__all__ = [
    "PRESETS",
    "Config",
    "PatchSamplingEnv",
    "PatchSamplingVectorEnv",
    "SkipWarmup",
]
