"""REINFORCE (thesis Eq. 3.4), its returns never normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.base import Env, OnEpisode, check_options, check_spaces
from agents.policy import Policy
from nbs_env.env import PatchSamplingEnv
from nbs_env.graphs import Graphed
from nbs_env.profiles import dihedral
from nbs_env.walk import CHANGE_IMAGE, DIRECTIONS


@dataclass(frozen=True)
class ReinforceOptions:
    """Settings of `Reinforce`; the papers give none of them but the number of rollouts."""

    learning_rate: float = 1e-3
    """Adam's learning rate for the policy."""
    discount: float = 0.99
    """Gamma, within a segment; R_pred comes at its end."""
    cloning_discount: float = 0.0
    """Gamma of the cloning segment, whose rewards are dense: what a patch earns depends on the last move."""
    entropy_weight: float = 0.1
    """Weight of the policy's mean entropy (nats) in the objective, times beta like what it balances."""
    rollouts: int = 1
    """Episodes whose gradients are averaged for one update of the policy."""
    symmetries: bool = True
    """See each episode under a random symmetry of the square, so that few images teach more."""
    baseline_decay: float = 0.9
    """Decay of the running mean of earlier episodes' returns that is subtracted; 1 subtracts nothing."""

    def __post_init__(self) -> None:
        check_options(self, "rollouts")


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
    """Q_t = R_t + discount * Q_(t+1) of one segment (T,); not normalised (see the proof in thesis 3.2.1)."""
    returns = np.zeros(len(rewards), np.float64)
    running = 0.0
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
        self._policy = Graphed(self._probabilities)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.options.learning_rate)
        self.baseline: dict[str, torch.Tensor] = {}  # segment -> (T,), float64
        self.pending: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def act(self, observation: np.ndarray) -> int:
        """Draw an action from the policy for `observation` (5, 128, 128)."""
        return self._draw(torch.from_numpy(observation).to(self.device))

    def _probabilities(self, windows: torch.Tensor) -> torch.Tensor:
        return self.policy(windows).softmax(dim=1)

    @torch.no_grad()
    def _draw(self, window: torch.Tensor) -> int:
        probabilities = self._policy(window[None])[0].cpu()
        return int(torch.multinomial(probabilities, 1, generator=self.generator))

    def learn(self, env: Env, episodes: int, on_episode: OnEpisode) -> None:
        """Play and learn; `on_episode` also gets the entropy (nats) and the return of each segment."""
        if not isinstance(env, PatchSamplingEnv):
            return self._learn(env, episodes, on_episode)
        env.tensors = True
        try:
            self._learn(env, episodes, on_episode)
        finally:
            env.tensors = False

    def _learn(self, env: Env, episodes: int, on_episode: OnEpisode) -> None:
        for _ in range(episodes):
            observation, info = env.reset()
            windows, actions, rewards, segments = [], [], [], []
            symmetry = int(torch.randint(8, (), generator=self.generator)) if self.options.symmetries else 0
            terminated = truncated = False
            while not (terminated or truncated):
                window = torch.as_tensor(observation, device=self.device)
                windows.append(dihedral(window, symmetry).contiguous())
                actions.append(self._draw(windows[-1]))
                action = ACTIONS_BEFORE[symmetry][actions[-1]]
                observation, reward, terminated, truncated, info = env.step(np.int64(action))
                rewards.append(float(reward))
                segments.append(info.get("segment", ""))
            figures: dict[str, float] = {}
            if not info.get("warmup", False):
                beta = float(info.get("beta", 1.0))
                figures = self._learn_from(windows, actions, np.array(rewards), np.array(segments), beta)
            on_episode(info | figures)

    def _learn_from(
        self,
        windows: list[torch.Tensor],
        actions: list[int],
        rewards: np.ndarray,
        segments: np.ndarray,
        beta: float = 1.0,
    ) -> dict[str, float]:
        """Put one rollout aside, and update the policy when there are enough of them."""
        advantages = np.zeros(len(rewards))
        figures = {}
        decay = self.options.baseline_decay
        for segment in dict.fromkeys(segments.tolist()):
            where = segments == segment
            cloning = segment == "cloning"
            discount = self.options.cloning_discount if cloning else self.options.discount
            returns = discounted_returns(rewards[where], discount)
            advantages[where] = returns
            if decay < 1:
                baseline = self.baseline.get(segment, torch.zeros(len(returns), dtype=torch.float64))
                advantages[where] -= baseline.numpy()
                step = 1 - decay if segment in self.baseline else 1.0
                self.baseline[segment] = baseline + step * (torch.from_numpy(returns) - baseline)
            figures[f"agent/{segment}_return"] = float(returns[0])
        rollout = (torch.stack(windows), torch.tensor(actions), torch.from_numpy(advantages).float())
        self.pending.append(rollout)
        if len(self.pending) == self.options.rollouts:
            windows_, actions_, advantages_ = (
                torch.cat(parts).to(self.device) for parts in zip(*self.pending, strict=True)
            )
            figures["agent/entropy"] = self._update(windows_, actions_, advantages_, beta)
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
