"""The prior over clusters: its loss by hand, what it follows, and which clusters it shuts down."""

from __future__ import annotations

import torch

from baselines.d_anogan.prior import Prior


def test_prior_loss_by_hand() -> None:
    prior = Prior(2, entropy_weight=3.0, decay=0.5)
    estimate = torch.tensor([0.75, 0.25])
    log2 = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(prior.loss(estimate).float(), log2 / 2 - 3 * log2 / 2)
    prior.advance()
    torch.testing.assert_close(prior.loss(estimate).float(), log2 / 2 - 1.5 * log2 / 2)


def test_prior_follows_the_estimate_and_shuts_down_for_good() -> None:
    prior = Prior(4, entropy_weight=0.0, threshold=0.05)
    optimizer = torch.optim.Adam(prior.parameters(), 0.05)
    estimate = torch.tensor([0.5, 0.3, 0.2, 0.0])
    for _ in range(400):
        optimizer.zero_grad()
        prior.loss(estimate).backward()
        optimizer.step()
        prior.advance()
    torch.testing.assert_close(prior.probabilities(), estimate, atol=0.01, rtol=0)
    assert prior.alive.tolist() == [True, True, True, False]
    with torch.no_grad():
        prior.logits[3] = 10.0
    prior.advance()
    assert prior.probabilities()[3] == 0


def test_last_cluster_is_never_shut_down() -> None:
    prior = Prior(3, threshold=0.9)
    with torch.no_grad():
        prior.logits[1] += 0.1
    prior.advance()
    assert prior.alive.tolist() == [False, True, False]
