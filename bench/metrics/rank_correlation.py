"""Whether two rankings agree: Kendall's tau-b and Spearman's rho, with exact permutation p-values."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

FEWEST = 5
"""Nothing is said of fewer pairs."""
EXACT = 9
"""Up to so many pairs (362,880 orders) every order is tried; above, a fixed random sample of them."""
_SAMPLED = 200_000


@dataclass(frozen=True)
class Agreement:
    """A rank correlation of ``n`` pairs."""

    tau: float
    """Kendall's tau-b."""
    tau_p: float
    """The share of all orders with at least that tau: one-sided."""
    rho: float
    """Spearman's rho."""
    rho_p: float
    n: int
    exact: bool
    """Whether every order was tried."""


def agreement(a: ArrayLike, b: ArrayLike) -> Agreement | None:
    """How two rankings of the same things agree; None below five, or where one of them is all ties.

    Raises:
        ValueError: two rows of different lengths, or a number that is not finite.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if x.shape != y.shape or x.ndim != 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("two rows of finite numbers, of one length")
    n = len(x)
    if n < FEWEST or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    orders = _orders(n)
    signs_x, signs_y = _signs(x), _signs(y)
    scale = math.sqrt(float((signs_x**2).sum()) * float((signs_y**2).sum()))
    ranks_x, ranks_y = (_standard(rankdata(values)) for values in (x, y))
    rhos = ranks_y[orders] @ ranks_x
    concordance = np.zeros(len(orders))
    for i, j in itertools.combinations(range(n), 2):
        concordance += 2 * signs_x[i, j] * signs_y[orders[:, i], orders[:, j]]
    return Agreement(
        tau=float(concordance[0]) / scale,
        tau_p=_share(concordance),
        rho=float(rhos[0]),
        rho_p=_share(rhos),
        n=n,
        exact=n <= EXACT,
    )


def _orders(n: int) -> NDArray[np.intp]:
    """Orders of n things (m, n), the given one first: all of them, or a sample."""
    if n <= EXACT:
        return np.array(list(itertools.permutations(range(n))), dtype=np.intp)
    rng = np.random.default_rng(n)
    sampled = rng.permuted(np.tile(np.arange(n, dtype=np.intp), (_SAMPLED, 1)), axis=1)
    return np.concatenate([np.arange(n, dtype=np.intp)[None], sampled])


def _signs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values[:, None] - values[None, :])


def _standard(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = ranks - ranks.mean()
    return centred / np.linalg.norm(centred)


def _share(statistics: NDArray[np.float64]) -> float:
    """Of all orders, how many reach the statistic of the given one (the first)."""
    return float((statistics >= statistics[0] - 1e-9).mean())
