"""REINFORCE (thesis Eq. 3.4), its returns never normalised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from agents.base import AgentError, Env, OnEpisode, check_spaces
from agents.policy import Policy
from nbs_env.common.settings import AtLeast, Count, Rate, Share, check_types
from nbs_env.common.symmetries import dihedral
from nbs_env.env import PatchSamplingEnv
from nbs_env.task import Game, play
from nbs_env.vector import PatchSamplingVectorEnv
from nbs_env.walk import CHANGE_IMAGE, DIRECTIONS
from nbs_env.wrappers import Alone


@dataclass(frozen=True)
class ReinforceOptions:
    """Settings of `Reinforce`; the papers give none of them but the number of rollouts."""

    learning_rate: Rate = 1e-3
    """Adam's learning rate for the policy."""
    discount: Annotated[float, Share()] = 0.99
    """Gamma, within a segment; R_pred comes at its end."""
    cloning_discount: Annotated[float, Share()] = 0.0
    """Gamma of the cloning segment, whose rewards are dense: what a patch earns depends on the last move."""
    entropy_weight: Annotated[float, AtLeast(0)] = 0.1
    """Weight of the policy's mean entropy (nats) in the objective, times beta like what it balances."""
    walkers: Count = 1
    """Walkers that play at once and share the learner; each has an episode of its own."""
    rollouts: Count = 1
    """Episodes whose gradients are averaged for one update of the policy."""
    symmetries: bool = True
    """See each episode under a random symmetry of the square, so that few images teach more."""
    baseline_decay: Annotated[float, Share()] = 0.7
    """Decay of the running mean of earlier episodes' returns that is subtracted; 1 subtracts nothing."""
    AS_PRINTED: ClassVar[dict[str, Any]] = {
        "cloning_discount": 0.99,
        "entropy_weight": 0.0,
        "symmetries": False,
        "baseline_decay": 1.0,
    }
    """What the preset `paper` begins with: Eq. 3.4 and nothing else."""

    def __post_init__(self) -> None:
        check_types(self, AgentError)


def _actions_before(symmetry: int) -> list[int]:
    """For each action in a window turned by `dihedral` the one that does the same in the window before."""
    after = []
    for rows, columns in DIRECTIONS:
        for _ in range(symmetry % 4):
            rows, columns = -columns, rows
        after.append(DIRECTIONS.index((rows, -columns if symmetry >= 4 else columns)))
    return [*(after.index(action) for action in range(8)), CHANGE_IMAGE]


ACTIONS_BEFORE = [_actions_before(symmetry) for symmetry in range(8)]


def discounted_returns(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Q_t = R_t + discount * Q_(t+1) in a segment (T, ...), not normalised (proof: thesis 3.2.1)."""
    returns = np.zeros(rewards.shape)
    running = np.zeros(rewards.shape[1:])
    for t in range(len(rewards) - 1, -1, -1):
        running = rewards[t] + discount * running
        returns[t] = running
    return returns


def policy_gradient_loss(
    logits: torch.Tensor, actions: torch.Tensor, advantages: torch.Tensor, entropy_weight: float
) -> torch.Tensor:
    """What Eq. 3.4 descends: -mean_t(log pi(a_t) A_t) - entropy_weight * mean_t H(pi).

    Args:
        logits: (T, 9).
        actions: (T,) int64.
        advantages: (T,) returns, less a baseline that does not depend on the actions.
        entropy_weight: of the entropy in nats.
    """
    log_probabilities = logits.log_softmax(dim=1)
    chosen = log_probabilities.gather(1, actions[:, None])[:, 0]
    entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1)
    return -(chosen * advantages).mean() - entropy_weight * entropy.mean()


class Reinforce:
    """The thesis's agent: Table 4.1's policy, trained by REINFORCE on one rollout an update.

    The two segments of an episode are two sequences of actions (Algorithm 1), so returns end with a segment.
    A running mean of earlier episodes' returns, step by step, is subtracted; that leaves the gradient
    unbiased and is not the normalisation that the proof forbids. Warm-up episodes are played only.

    Several walkers are paid for what all of them chose, so each is one rollout of the same policy.

    The policy lives where the environment's networks do, and windows stay there, unless wrappers lie between;
    all random numbers come from the CPU.
    """

    Options = ReinforceOptions

    def __init__(self, env: Env, seed: int, options: ReinforceOptions | None = None) -> None:
        check_spaces(env)
        self.options = options or ReinforceOptions()
        self.generator = torch.Generator().manual_seed(seed)
        learner = getattr(env.unwrapped, "learner", None)
        self.device: torch.device = learner.device if learner else torch.device("cpu")
        self.policy = Policy(self.generator).to(self.device)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.options.learning_rate)
        self.baseline: dict[str, torch.Tensor] = {}  # segment -> (T,), float64
        self.pending: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def act(self, observation: np.ndarray) -> int:
        """Draw an action from the policy for `observation` (5, 128, 128)."""
        return self._draw(torch.from_numpy(observation[None]).to(self.device))[0]

    @torch.no_grad()
    def _draw(self, windows: torch.Tensor) -> list[int]:
        probabilities = self.policy(windows).softmax(dim=1).cpu()
        return torch.multinomial(probabilities, 1, generator=self.generator)[:, 0].tolist()

    def learn(self, env: Env, episodes: int, on_episode: OnEpisode) -> None:
        """Play and learn; `on_episode` also gets the entropy (nats) and the walkers' mean return by segment.

        Raises:
            AgentError: several walkers cannot walk through wrappers.
        """
        if isinstance(env, PatchSamplingEnv):
            walkers = PatchSamplingVectorEnv(self.options.walkers, env=env, tensors=True)
            return self._learn(walkers, episodes, on_episode)
        if self.options.walkers > 1:
            raise AgentError(f"walkers is {self.options.walkers}, but {env} lets one walk; choose 1")
        return self._learn(Alone(env), episodes, on_episode)

    def _learn(self, game: Game, episodes: int, on_episode: OnEpisode) -> None:
        for _ in range(episodes):
            observations, _ = game.begin()
            symmetries = [0] * len(observations)
            if self.options.symmetries:
                symmetries = torch.randint(8, (len(observations),), generator=self.generator).tolist()
            windows: list[torch.Tensor] = []
            actions: list[list[int]] = []
            act = partial(self._act, symmetries, windows, actions)
            _, rewards, infos = zip(*play(game, act, observations), strict=True)
            segments = [info[0].get("segment", "") for info in infos]
            info, figures = infos[-1][0], {}
            if not info.get("warmup", False):
                beta = float(info.get("beta", 1.0))
                figures = self._learn_from(windows, actions, np.array(rewards), np.array(segments), beta)
            on_episode(info | figures)

    def _act(
        self, symmetries: list[int], windows: list[torch.Tensor], actions: list[list[int]], observations: Any
    ) -> np.ndarray:
        """Moves (walkers,), drawn under `symmetries`; what the policy saw and chose is put aside."""
        seen = zip(torch.as_tensor(observations, device=self.device), symmetries, strict=True)
        windows.append(torch.stack([dihedral(window, k) for window, k in seen]))
        actions.append(self._draw(windows[-1]))
        drawn = zip(symmetries, actions[-1], strict=True)
        return np.array([ACTIONS_BEFORE[symmetry][action] for symmetry, action in drawn])

    def _learn_from(
        self,
        windows: list[torch.Tensor],
        actions: list[list[int]],
        rewards: np.ndarray,
        segments: np.ndarray,
        beta: float = 1.0,
    ) -> dict[str, float]:
        """Put one episode aside, and update the policy when there are enough of them.

        It has T windows (walkers, 5, 128, 128) and actions (walkers,), rewards (T, walkers), names (T,).
        """
        advantages = np.zeros(rewards.shape)
        figures = {}
        decay = self.options.baseline_decay
        for segment in dict.fromkeys(segments.tolist()):
            where = segments == segment
            cloning = segment == "cloning"
            discount = self.options.cloning_discount if cloning else self.options.discount
            returns = discounted_returns(rewards[where], discount)
            advantages[where] = returns
            if decay < 1:
                # What walkers are paid depends on the others' actions, so all count in one go.
                seen = torch.from_numpy(returns.mean(axis=1))
                baseline = self.baseline.get(segment)
                if baseline is None:  # nothing to compare the first episode with: it teaches nothing
                    advantages[where], self.baseline[segment] = 0, seen
                else:
                    advantages[where] -= baseline.numpy()[:, None]
                    self.baseline[segment] = decay * baseline + (1 - decay) * seen
            figures[f"agent/{segment}_return"] = float(returns[0].mean())
            figures[f"agent/{segment}_advantage"] = float(advantages[where].mean())
        paid = torch.from_numpy(advantages).float()
        self.pending.append((torch.cat(windows), torch.tensor(actions).ravel(), paid.ravel()))
        if len(self.pending) == self.options.rollouts:
            parts = zip(*self.pending, strict=True)
            seen, chosen, paid = (torch.cat(part).to(self.device) for part in parts)
            figures["agent/entropy"] = self._update(seen, chosen, paid, beta)
            self.pending = []
        return figures

    def _update(
        self, windows: torch.Tensor, actions: torch.Tensor, advantages: torch.Tensor, beta: float
    ) -> float:
        """One step of Eq. 3.4, then new statistics for BatchNorm; the policy's mean entropy before it."""
        self.optimizer.zero_grad(set_to_none=True)
        entropy = 0.0
        # Statistics are frozen, so parts that fit a processor's cache give the gradient of the whole.
        size = 32 if self.device.type == "cpu" else len(windows)
        parts = (whole.split(size) for whole in (windows, actions, advantages))
        for part, chosen, advantage in zip(*parts, strict=True):
            logits = self.policy(part)
            share = len(part) / len(windows)
            loss = policy_gradient_loss(logits, chosen, advantage, beta * self.options.entropy_weight)
            (share * loss).backward()
            entropy += share * float(torch.distributions.Categorical(logits=logits.detach()).entropy().mean())
        self.optimizer.step()
        self.policy.features.refresh(windows)
        return entropy

    def state_dict(self) -> dict[str, Any]:
        """Policy, optimiser, generator, baseline, and rollouts put aside."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "baseline": self.baseline,
            "pending": self.pending,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.baseline = dict(state["baseline"])
        self.pending = list(state["pending"])
