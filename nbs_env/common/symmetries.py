"""The eight symmetries of the square."""

from __future__ import annotations

import torch


def dihedral(x: torch.Tensor, k: int) -> torch.Tensor:
    """One of the eight symmetries of the square, k in 0..7, on the last two dimensions; 0 is the identity."""
    rows, columns = k % 4 in (1, 2), (k % 4 in (2, 3)) != (k >= 4)
    x = x.transpose(-2, -1) if k % 2 else x  # a quarter of a turn is a transposition and a flip
    dims = [dim for dim, flipped in ((-2, rows), (-1, columns)) if flipped]
    return x.flip(dims) if dims else x


def inverse(k: int) -> int:
    """The symmetry that `dihedral` takes `k` back with."""
    return k if k >= 4 else -k % 4
