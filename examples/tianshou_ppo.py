"""Tianshou's PPO on the patch-sampling task, with its own collector and trainer.

python -m pip install -e '.[examples]' && python examples/tianshou_ppo.py
"""

from __future__ import annotations

import gymnasium
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, InfoStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import ModuleWithVectorOutput
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

from agents.policy import PolicyFeatures
from nbs_env.wrappers import SkipWarmup


class Features(ModuleWithVectorOutput):
    """Table 4.1 up to its last layer, as Tianshou wants it."""

    def __init__(self) -> None:
        super().__init__(PolicyFeatures.size)
        self.features = PolicyFeatures(torch.Generator().manual_seed(0))

    def forward(self, obs, state=None, info=None):
        """Features (B, 256) of windows (B, 5, 128, 128)."""
        return self.features(torch.as_tensor(obs)), state


def train(env: gymnasium.Env, episodes: int) -> InfoStats:
    """PPO over `episodes` episodes of `env` after its warm-up; Tianshou's summary.

    Its returns run across the two segments: with a lambda of 0.95, 2 % of R_pred reaches the end of cloning.
    """
    skipping = SkipWarmup(env, lambda window: env.action_space.sample())
    features = Features()
    policy = ProbabilisticActorPolicy(
        actor=DiscreteActor(preprocess_net=features, action_shape=9, softmax_output=False),
        dist_fn=lambda logits: torch.distributions.Categorical(logits=logits),
        action_space=env.action_space,
        action_scaling=False,
    )
    algorithm = PPO(
        policy=policy,
        critic=DiscreteCritic(preprocess_net=features),
        optim=AdamOptimizerFactory(lr=3e-4),
        advantage_normalization=False,
    )
    config = env.unwrapped.config
    steps = config.cloning_length + config.episode_length
    collector = Collector(policy, DummyVectorEnv([lambda: skipping]), VectorReplayBuffer(steps, 1))
    return algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=episodes * steps,
            collection_step_num_env_steps=None,
            collection_step_num_episodes=1,
            update_step_num_repetitions=4,
            verbose=False,
            show_progress=False,
        )
    )


if __name__ == "__main__":
    print(train(gymnasium.make("nbs_env:nbs_env/PatchSampling-v0"), 5))
