"""REINFORCE of TorchRL's parts: its wrapper for Gymnasium, its specification check, its collector.

python -m pip install -e '.[examples]' && python examples/torchrl_reinforce.py
"""

from __future__ import annotations

import gymnasium
import torch
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs

from agents.policy import Policy
from nbs_env.wrappers import SkipWarmup


def reward_to_go(rewards: torch.Tensor, cloning_length: int) -> torch.Tensor:
    """What each action of an episode (steps,) is followed by in its own segment.

    R_pred, paid at the last step, is owed to the patches of the training segment: those of the cloning
    segment before it train nothing.
    """
    segments = rewards[:cloning_length], rewards[cloning_length:]
    return torch.cat([segment.flip(0).cumsum(0).flip(0) for segment in segments])


def train(env: gymnasium.Env, episodes: int) -> list[float]:
    """Learn over `episodes` episodes of `env` after its warm-up; the return of each."""
    config = env.unwrapped.config
    steps = config.cloning_length + config.episode_length
    skipping = SkipWarmup(env, lambda window: env.action_space.sample())
    wrapped = GymWrapper(skipping, categorical_action_encoding=True)
    check_env_specs(wrapped)
    policy = Policy(torch.Generator().manual_seed(0))

    def logits(windows: torch.Tensor) -> torch.Tensor:  # (..., 5, 128, 128) to (..., 9)
        return policy(windows.reshape(-1, 5, 128, 128)).reshape(*windows.shape[:-3], 9)

    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(logits, in_keys=["observation"], out_keys=["logits"]),
        ProbabilisticTensorDictModule(
            in_keys=["logits"], out_keys=["action"], distribution_class=torch.distributions.Categorical
        ),
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    returns = []
    for batch in Collector(wrapped, actor, frames_per_batch=steps, total_frames=episodes * steps):
        rewards = batch["next", "reward"][:, 0]
        to_go = reward_to_go(rewards, config.cloning_length)
        distribution = torch.distributions.Categorical(logits=logits(batch["observation"]))
        loss = -(distribution.log_prob(batch["action"]) * to_go).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        returns.append(float(rewards.sum()))
    return returns


if __name__ == "__main__":
    print(train(gymnasium.make("nbs_env:nbs_env/PatchSampling-v0"), 5))
