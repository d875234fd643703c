"""Environments in forked processes, where PyTorch's threads are missing: they neither hang nor differ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import gymnasium, numpy as np, torch
from nbs_env.config import Config
from nbs_env.data import load

config = Config(image_size=128, episode_length=2, minibatch_size=2, cloning_length=2, bottleneck_channels=8,
                precision="float32")
settings = dict(config=config, dataset=load("synthetic", image_size=128, count=6), labeled=2, device="cpu")

if __name__ == "__main__":
    assert torch.get_num_threads() == 2
    torch.nn.Conv2d(3, 64, 3)(torch.zeros(8, 3, 128, 128))  # its threads run now
    vector = gymnasium.make_vec("nbs_env:nbs_env/PatchSampling-v0", num_envs=2, vectorization_mode="async",
                                vector_kwargs={"context": "fork"}, **settings)
    together = [vector.reset(seed=3)[0]] + [vector.step(np.array([a, a]))[0] for a in (1, 8, 2, 4)]
    vector.close()
    assert torch.get_num_threads() == 2  # the parent keeps its own
    torch.set_num_threads(1)
    for number in range(2):
        env = gymnasium.make("nbs_env:nbs_env/PatchSampling-v0", **settings)
        alone = [env.reset(seed=3 + number)[0]] + [env.step(a)[0] for a in (1, 8, 2, 4)]
        assert all((many[number] == one).all() for many, one in zip(together, alone, strict=True))
    print("the same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_forked_environments_step_and_train(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = run.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)  # what was forked as well
        raise
    assert said.splitlines()[-1:] == ["the same"], said
