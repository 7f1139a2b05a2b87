"""The three losses, from what the networks put out."""

from __future__ import annotations

import numpy as np

from tests.learner.reference.densities import bernoulli_log_prob, normal_kl, normal_log_prob
from tests.learner.reference.returns import cumulative_discount, lambda_return
from tests.learner.reference.rssm import Belief


def image_loss(image: np.ndarray, mean: np.ndarray) -> float:
    """−E[ln p(o|s)]: (L, B, pixels...) under Normal(mean, 1), summed over an image, averaged over rows."""
    length, batch = image.shape[:2]
    return -float(normal_log_prob(image, mean).sum()) / (length * batch)


def reward_loss(reward: np.ndarray, mean: np.ndarray) -> float:
    """−E[ln p(r|s)]: (L, B) under Normal(mean, 1)."""
    return -float(normal_log_prob(reward, mean).mean())


def discount_loss(discount: np.ndarray, probability: np.ndarray, gamma: float) -> float:
    """−E[ln Bernoulli] of the soft label gamma · discount."""
    return -float(bernoulli_log_prob(gamma * discount, probability).mean())


def kl_loss(posterior: Belief, prior: Belief, free_nats: float, clip: str) -> float:
    """max(E[KL(posterior ‖ prior)], free_nats); with clip "element", the maximum before the mean."""
    each = normal_kl(posterior.mean, posterior.std, prior.mean, prior.std)
    if clip == "element":
        return float(np.maximum(each, free_nats).mean())
    return max(float(each.mean()), free_nats)


def actor_loss(reward: np.ndarray, value: np.ndarray, discount: np.ndarray, lambda_: float) -> float:
    """−mean(D_tau · R_tau) over tau = 1..H−1 and all starts."""
    return -float((cumulative_discount(discount) * lambda_return(reward, value, discount, lambda_)).mean())


def value_loss(returns: np.ndarray, value: np.ndarray, discount: np.ndarray) -> float:
    """mean(−D_tau · ln N(R_tau; v_tau, 1)), where nothing but v_tau depends on the value head; `value` has H rows."""
    return -float((cumulative_discount(discount) * normal_log_prob(returns, value[:-1])).mean())
