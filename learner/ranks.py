"""The learner processes that share each batch, as the maths sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

Groups = dict[str, list[Tensor]]


class RankLostError(Exception):
    """Another rank is gone or does not answer: nothing can be computed together any more."""


class Ranks:
    """One process with the whole batch: nothing is shared, and everything here costs nothing.

    With R ranks (`learner.data_parallel`) each has B/R of a batch's B sequences and computes a loss L_r of them. Shares
    are equal, so whatever is a mean of things that belong to single sequences is the mean over ranks of their means,
    and so is its gradient: ∂L/∂θ = 1/R · Σ_r ∂L_r/∂θ. What looks at the whole batch instead comes through here:

    - `max(E[KL], free nats)`: E over the whole batch, before the maximum (`mean`);
    - BIRD's confidence: mean and standard deviation over all N trajectories (`mean`, `std`);
    - IDM's reliability: brought to mean 1 over all rows and trajectories (`mean`);
    - J_NCE: each state against the observations of the whole batch (`gather`);
    - the clipped norm: of the averaged gradients (`average`).

    Attributes:
        rank: this one, 0 … size − 1.
        size: R.
    """

    rank = 0
    size = 1

    def mean(self, share: Tensor) -> Tensor:
        """The mean over ranks of each one's value.

        Its gradient reaches the own value undivided: `average` divides.
        """
        return share

    def std(self, values: Tensor) -> Tensor:
        """The population standard deviation of all ranks' values (n,) together, detached."""
        return values.detach().std(correction=0)

    def gather(self, rows: Tensor) -> Tensor:
        """All ranks' rows (n, …), one rank after the other (R · n, …); gradients find their way back."""
        return rows

    def own(self, whole: Tensor, shape: Sequence[int], sequences: int) -> Tensor:
        """This rank's part of what was drawn for the whole batch.

        Args:
            whole: (…, n · B, …), sequences in one axis, alone or as the fastest part of it.
            shape: of the part, (…, n · B/R, …).
            sequences: B/R.
        """
        return whole

    def average(self, gradients: Groups) -> Groups:
        """The means over ranks of gradients, by the name of their loss."""
        return gradients

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank; on the host, without a look at the device."""
        return here

    def assert_same(self, tensors: Iterable[Tensor]) -> None:
        """Raises UserError unless all ranks have the same tensors, to the bit."""


ALONE = Ranks()
"""The only rank."""
