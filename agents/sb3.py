"""PPO, A2C and DQN of Stable-Baselines3 on the patch-sampling task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from agents.base import AgentError, Env, OnEpisode, check_spaces
from agents.policy import PolicyFeatures
from agents.sb3_env import POLICY_KWARGS, SB3VecEnv
from nbs_env.common.settings import AtLeast, Count, Rate, Share, check_types
from nbs_env.env import PatchSamplingEnv
from nbs_env.task import play
from nbs_env.vector import PatchSamplingVectorEnv


class _Episodes(BaseCallback):
    """Between two rollouts, of one episode each: move the statistics, report, begin the next episode.

    Everything that a resumed run needs is complete when an episode is reported.
    """

    def __init__(self, venv: SB3VecEnv, on_episode: OnEpisode) -> None:
        super().__init__()
        self.venv, self.on_episode = venv, on_episode
        self.last: dict[str, Any] | None = None
        self.windows: list[np.ndarray] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.windows.append(self.locals["new_obs"])
        if "update" in infos[0]:
            self.last = {k: v for k, v in infos[0].items() if k != "terminal_observation"}
        return True

    def report(self) -> bool:
        """Report the episode played last, once."""
        if self.last is None:
            return False
        seen = torch.from_numpy(np.concatenate(self.windows))
        for module in self.model.policy.modules():
            if isinstance(module, PolicyFeatures):
                module.refresh(seen.to(self.model.device))
        info, self.last, self.windows = self.last, None, []
        logged = {k: v for k, v in self.model.logger.name_to_value.items() if not k.startswith("time/")}
        self.on_episode(info | {f"agent/{k.split('/')[-1]}": float(v) for k, v in logged.items()})
        return True

    def _on_rollout_start(self) -> None:
        if self.report():
            self.model._last_obs = self.venv.reset()
            self.model._last_episode_starts = np.ones(self.venv.num_envs, bool)


@dataclass(frozen=True)
class SB3Options:
    """What the three algorithms share."""

    learning_rate: Rate = 3e-4
    """Adam's learning rate (RMSprop's of A2C)."""
    discount: Annotated[float, Share()] = 0.99
    """Gamma, within a segment."""
    walkers: Count = 1
    """Patches that walk at once; all train the same autoencoder, which costs time accordingly."""

    def __post_init__(self) -> None:
        check_types(self, AgentError)


@dataclass(frozen=True)
class A2COptions(SB3Options):
    """Settings of `A2C`."""

    gae_lambda: Annotated[float, Share()] = 0.95
    """Lambda of generalised advantage estimation."""
    entropy_weight: Annotated[float, AtLeast(0)] = 0.05
    """Weight of the entropy in the objective."""
    normalize_advantage: bool = False
    """Standardise advantages within a batch: what the thesis's proof (3.2.1) warns of."""


@dataclass(frozen=True)
class PPOOptions(A2COptions):
    """Settings of `PPO`."""

    epochs: Count = 4
    """Passes over an episode."""
    batch_size: Count = 64
    """Steps of a gradient step."""


@dataclass(frozen=True)
class DQNOptions(SB3Options):
    """Settings of `DQN`."""

    gradient_steps: Count = 32
    """Gradient steps after an episode."""
    batch_size: Count = 32
    """Transitions of a gradient step."""
    replay_steps: Count = 2048
    """Transitions that are remembered; a window takes a third of a megabyte, in checkpoints too."""
    exploration_fraction: Annotated[float, Share()] = 0.5
    """Share of a run in which random actions fall from all to 5 %."""


class SB3Agent:
    """An algorithm of Stable-Baselines3 as an `Agent`; `model` is the algorithm itself.

    It learns after every episode that is not a warm-up; those are played only. Stable-Baselines3 draws from
    the global generators of PyTorch and NumPy: they are seeded here, and are part of the state.
    """

    Algorithm: ClassVar[type[BaseAlgorithm]]
    Options: ClassVar[type[SB3Options]]

    def __init__(self, env: Env, seed: int, options: SB3Options | None = None) -> None:
        check_spaces(env)
        self.options = options or self.Options()
        venv = self._vectorize(env)
        try:
            self.model: Any = self.Algorithm(  # type: ignore[call-arg]
                "MlpPolicy",
                venv,
                learning_rate=self.options.learning_rate,
                gamma=self.options.discount,
                policy_kwargs=POLICY_KWARGS,
                seed=seed,
                device="cpu",
                **self._settings(_episode_steps(venv)),
            )
        except (ValueError, AssertionError) as error:
            raise AgentError(f"Stable-Baselines3 rejects the settings of the agent: {error}") from error
        self.model.set_logger(Logger(folder=None, output_formats=[]))

    def _settings(self, steps: int) -> dict[str, Any]:
        """What only this algorithm takes; `steps` are an episode's."""
        raise NotImplementedError

    def _vectorize(self, env: Env, on_episode: OnEpisode | None = None) -> SB3VecEnv:
        inner = env.unwrapped
        if not isinstance(inner, PatchSamplingEnv):
            raise AgentError(f"this agent plays PatchSamplingEnv, not {type(inner).__name__}")
        venv = SB3VecEnv(PatchSamplingVectorEnv(self.options.walkers, env=inner), self._draw, on_episode)
        venv.auto_reset = False  # `_Episodes` resets, when what was learnt from the episode is in the state
        return venv

    def _draw(self, observations: np.ndarray) -> np.ndarray:
        return self.model.predict(observations, deterministic=False)[0]

    def act(self, observation: np.ndarray) -> int:
        """Draw an action for `observation` (5, 128, 128)."""
        return int(self._draw(observation[None])[0])

    def learn(self, env: Env, episodes: int, on_episode: OnEpisode) -> None:
        """Play and learn, wrappers left out; `on_episode` also gets what Stable-Baselines3 logs."""
        venv = self._vectorize(env, on_episode)
        learner, config = venv.env.learner, venv.env.env.config
        ages = (learner.updates + np.arange(episodes)) % config.reinit_period
        steps = int((ages >= config.warmup_updates).sum()) * _episode_steps(venv) * venv.num_envs
        end = learner.updates + episodes
        if steps:
            self.model.set_env(venv)
            between = _Episodes(venv, on_episode)
            self.model.learn(steps, between, log_interval=None, reset_num_timesteps=False)
            between.report()
        while learner.updates < end:  # what is left is a warm-up
            *_, (_, _, infos) = play(venv.env, self._draw, venv.env.begin()[0])
            on_episode(infos[0])

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser, counters, the generators, and the replay memory if there is one."""
        model = self.model
        state: dict[str, Any] = {
            "parameters": model.get_parameters(),
            "timesteps": model.num_timesteps,
            "updates": model._n_updates,
            "torch": torch.get_rng_state(),
            "numpy": _legacy_state(),
            "actions": json.dumps(model.action_space.np_random.bit_generator.state),
        }
        if isinstance(model, stable_baselines3.DQN):
            memory: Any = model.replay_buffer
            names = ("observations", "actions", "rewards", "dones")
            kept = {name: getattr(memory, name)[: memory.size()].copy() for name in names}
            state["memory"] = {name: torch.from_numpy(values) for name, values in kept.items()}
            state |= {"position": memory.pos, "full": memory.full, "calls": model._n_calls}
            state["exploration_rate"] = float(model.exploration_rate)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        model = self.model
        model.set_parameters(state["parameters"])
        model.num_timesteps, model._n_updates = state["timesteps"], state["updates"]
        torch.set_rng_state(state["torch"])
        name, key, *rest = json.loads(state["numpy"])
        np.random.set_state((name, np.array(key, np.uint32), *rest))  # noqa: NPY002
        model.action_space.np_random.bit_generator.state = json.loads(state["actions"])
        if isinstance(model, stable_baselines3.DQN):
            memory: Any = model.replay_buffer
            for name, values in state["memory"].items():
                getattr(memory, name)[: len(values)] = values.numpy()
            memory.pos, memory.full, model._n_calls = state["position"], state["full"], state["calls"]
            model.exploration_rate = state["exploration_rate"]


def _episode_steps(venv: SB3VecEnv) -> int:
    config = venv.env.env.config
    return config.cloning_length + config.episode_length


def _legacy_state() -> str:
    name, key, *rest = np.random.get_state()  # noqa: NPY002
    return json.dumps([name, np.asarray(key).tolist(), *rest])


class A2C(SB3Agent):
    """Advantage actor-critic, one update an episode, from that episode."""

    Algorithm: ClassVar[type[BaseAlgorithm]] = stable_baselines3.A2C
    Options = A2COptions
    options: A2COptions

    def _settings(self, steps: int) -> dict[str, Any]:
        return {
            "n_steps": steps,
            "gae_lambda": self.options.gae_lambda,
            "ent_coef": self.options.entropy_weight,
            "normalize_advantage": self.options.normalize_advantage,
        }


class PPO(A2C):
    """Proximal policy optimisation, one update an episode, from that episode."""

    Algorithm, Options = stable_baselines3.PPO, PPOOptions
    options: PPOOptions

    def _settings(self, steps: int) -> dict[str, Any]:
        more = {"batch_size": self.options.batch_size, "n_epochs": self.options.epochs}
        return super()._settings(steps) | more


class DQN(SB3Agent):
    """Deep Q-learning; it learns after each episode from the last `replay_steps` transitions."""

    Algorithm, Options = stable_baselines3.DQN, DQNOptions
    options: DQNOptions

    def _settings(self, steps: int) -> dict[str, Any]:
        return {
            "buffer_size": self.options.replay_steps,
            "learning_starts": 0,
            "batch_size": self.options.batch_size,
            "train_freq": (steps, "step"),
            "gradient_steps": self.options.gradient_steps,
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
            "target_update_interval": 8 * steps,
            "exploration_fraction": self.options.exploration_fraction,
        }
