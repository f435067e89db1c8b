"""Laws given by listing, in nats: a table, a uniform law on listed rows, the Hamming code, 4x4 Sudoku."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import entr
from torch import Tensor
from torch.nn.functional import one_hot

from unmask.base.numbers import shown, whole
from unmask.laws.base import Array, Law, as_tensor, draw_symbols, flat_log_prob

_LARGEST_TABLE = 2**22
"""Entries of a table that we are willing to build from another law."""

_LARGEST_ENUMERATION = 2**28
"""(subset, entry) pairs that an exact profile may visit; about ten seconds."""

_CHUNK = 2**22
"""Entries handled at once, so that memory stays in the tens of megabytes."""


class Table(Law):
    """Any law small enough to be listed, from its log-probabilities in nats.

    ``log_probs`` is flat, row-major (the last position varies fastest), with vocab**length entries; the
    vocabulary is inferred. Entries may be -inf. Raises ValueError if no vocabulary fits, or if the
    probabilities do not sum to one within 1e-9.
    """

    def __init__(self, log_probs: object, length: int) -> None:
        flat = as_tensor("log_probs", log_probs)
        super().__init__(length, _inferred_vocab(flat, whole(length, "length", 1)))
        gap = abs(float(flat.exp().sum()) - 1)
        if not gap <= 1e-9:
            raise ValueError(
                f"got a table whose sum is off one by {gap:.3g}, expected 1e-9 at most; "
                "pass log_probs.double().log_softmax(0)"
            )
        self._log_probs = flat - flat.logsumexp(0)

    def entropies(self) -> Array:
        """The entropy profile, nats, by summing out every subset of positions: (V + 1)^L additions."""
        _check_enumeration((self.vocab_size + 1) ** self.length)
        table = self._log_probs.exp().view([self.vocab_size] * self.length).numpy()
        totals = np.zeros(self.length + 1)
        for size, entropy in _subset_entropies(table, 0):
            totals[size] += entropy
        return _increments(totals)

    def _log_weights(self, tokens: Tensor) -> Tensor:
        chunk = max(1, _CHUNK // self._log_probs.numel())
        parts = [self._marginals(part) for part in torch.split(tokens, chunk)]
        return torch.cat(parts) if parts else torch.zeros(0, 1, self.vocab_size, dtype=torch.float64)

    def _marginals(self, tokens: Tensor) -> Tensor:
        choices = torch.cat([torch.eye(self.vocab_size), torch.ones(1, self.vocab_size)]).double()
        allowed = choices.log()[tokens]
        joint = self._log_probs.repeat(len(tokens), 1)
        for n in range(self.length):
            self._by_position(joint, n).add_(allowed[:, n, None, :, None])
        peak = joint.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).min)
        joint = (joint - peak).exp()
        return torch.stack([self._by_position(joint, n).sum((1, 3)) for n in range(self.length)], 1).log()

    def _by_position(self, joint: Tensor, n: int) -> Tensor:
        v = self.vocab_size
        return joint.view(len(joint), v**n, v, v ** (self.length - n - 1))

    def _log_prob(self, tokens: Tensor) -> Tensor:
        places = self.vocab_size ** torch.arange(self.length - 1, -1, -1)
        return self._log_probs[(tokens * places).sum(1)]

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        index = draw_symbols(self._log_probs.exp().unsqueeze(0), n, generator)[0]
        places = self.vocab_size ** torch.arange(self.length - 1, -1, -1)
        return index[:, None] // places % self.vocab_size


def tabulated(law: Law) -> Table:
    """The same law as a `Table` of log-probabilities in nats; ValueError above 2^22 sequences."""
    size = law.vocab_size**law.length
    if size > _LARGEST_TABLE:
        raise ValueError(
            f"got {law.vocab_size}^{law.length} sequences, expected 2^22 at most; use a shorter law"
        )
    places = law.vocab_size ** torch.arange(law.length - 1, -1, -1)
    sequences = torch.arange(size)[:, None] // places % law.vocab_size
    return Table(law.log_prob(sequences), law.length)


class Support(Law):
    """The uniform law on listed sequences, ln m nats: ``rows`` int64 [m, L], distinct, below ``vocab``.

    A conditional counts the rows that agree with the visible tokens. Raises ValueError for repeated rows.
    """

    def __init__(self, rows: object, vocab: int) -> None:
        try:
            listed = torch.as_tensor(rows, device="cpu").detach().clone()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"got rows {shown(rows)}, expected int64 [m, length]; list the sequences"
            ) from None
        if listed.ndim != 2 or listed.numel() == 0:
            raise ValueError(
                f"got rows of shape {list(listed.shape)}, expected [m, length]; list the sequences"
            )
        super().__init__(listed.shape[1], vocab)
        self._check(listed, self.vocab_size - 1, "raise vocab or correct the rows")
        repeated = len(listed) - len(torch.unique(listed, dim=0))
        if repeated:
            raise ValueError(f"got {repeated} repeated rows, expected distinct ones; call rows.unique(dim=0)")
        self.rows = listed
        # Counts are integers, exact in float32 below 2^24, so the products below do not depend on the batch.
        self._indicators = one_hot(listed, self.vocab_size).flatten(1).float()

    def entropies(self) -> Array:
        """The entropy profile, nats, by grouping the rows by their symbols on every subset of positions."""
        _check_enumeration(2**self.length * len(self.rows))
        columns = self.rows.numpy()
        half = self.length // 2
        low, high = _class_ids(columns[:, :half]), _class_ids(columns[:, half:])
        high_sizes = _popcounts(len(high))
        totals = np.zeros(self.length + 1)
        for mask, ids in enumerate(low):
            values = _group_entropies(ids * np.int64(len(columns)) + high)
            np.add.at(totals, high_sizes + mask.bit_count(), values)
        return _increments(totals)

    def _agreeing(self, tokens: Tensor) -> Tensor:
        """Bool [B, m]: which listed rows agree with all visible tokens."""
        visible = one_hot(tokens, self.vocab_size + 1)[..., : self.vocab_size].flatten(1).float()
        return visible @ self._indicators.T == (tokens != self.mask_id).sum(1, keepdim=True)

    def _log_weights(self, tokens: Tensor) -> Tensor:
        counts = self._agreeing(tokens).float() @ self._indicators
        return counts.view(len(tokens), self.length, self.vocab_size).double().log()

    def _log_prob(self, tokens: Tensor) -> Tensor:
        inside = self._agreeing(tokens).any(1)
        return flat_log_prob(inside, math.log(len(self.rows)))

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (n,), generator=generator)]


def Hamming74() -> Support:
    """The 16 words of the binary [7, 4] Hamming code, uniform; profile in bits 1, 1, 1, .8, .2, 0, 0.

    A word belongs to the code if the numbers 1..7 of its ones have XOR zero.
    """
    words = torch.cartesian_prod(*[torch.arange(2)] * 7)
    checks = torch.arange(1, 8)[:, None] >> torch.arange(3) & 1
    return Support(words[(words @ checks % 2 == 0).all(1)], 2)


def Sudoku4() -> Support:
    """The 288 grids of 4x4 Sudoku, uniform, ln 288 nats: 16 cells row-major, symbol = digit - 1."""
    lines = np.array(list(itertools.permutations(range(4))))
    grids = lines[np.indices([len(lines)] * 4).reshape(4, -1).T]
    bits = 1 << grids
    boxes = bits.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)
    complete = (bits.sum(1) == 15).all(1) & (boxes.sum(2) == 15).all(1)
    # Four powers of two from 1, 2, 4, 8 sum to 15 only if all differ.
    return Support(torch.from_numpy(grids[complete].reshape(-1, 16)), 4)


def _check_enumeration(pairs: int) -> None:
    """Raises ValueError if an exact profile would visit too many (subset, entry) pairs."""
    if pairs > _LARGEST_ENUMERATION:
        raise ValueError(
            f"got about 2^{pairs.bit_length() - 1} pairs to enumerate, expected 2^28 at most; "
            "use estimate_entropies(law, samples, generator)"
        )


def _inferred_vocab(flat: Tensor, length: int) -> int:
    if flat.ndim != 1:
        raise ValueError(f"got log_probs of shape {list(flat.shape)}, expected one dimension; flatten it")
    vocab = round(math.pow(flat.numel(), 1 / length))
    if vocab < 2 or vocab**length != flat.numel():
        raise ValueError(
            f"got {flat.numel()} entries, expected vocab**{length} with vocab >= 2; "
            "check the length or the table"
        )
    return vocab


def _subset_entropies(table: npt.NDArray[np.float64], axis: int) -> Iterator[tuple[int, float]]:
    """(size, entropy in nats) of every subset of the axes; axes before ``axis`` are kept."""
    if axis == table.ndim:
        yield axis, float(entr(table).sum())
        return
    yield from _subset_entropies(table, axis + 1)
    yield from _subset_entropies(table.sum(axis), axis)


def _increments(totals: Array) -> Array:
    """h(i) = A(i+1) - A(i), nats, from sums over subsets by size; A(i) is the mean entropy of i positions."""
    length = len(totals) - 1
    means = totals / [math.comb(length, k) for k in range(length + 1)]
    return np.maximum(np.diff(means), 0.0)


def _popcounts(count: int) -> npt.NDArray[np.int64]:
    return np.array([mask.bit_count() for mask in range(count)], dtype=np.int64)


def _class_ids(columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 [2^width, m]: for every subset of the columns, which rows are equal there (equal id = equal)."""
    ids = np.zeros((1, len(columns)), dtype=np.int64)
    for column in columns.T:
        joined = ids * (column.max() + 1) + column
        ids = np.concatenate([ids, np.stack([np.unique(row, return_inverse=True)[1] for row in joined])])
    return ids


def _group_entropies(keys: npt.NDArray[np.int64]) -> Array:
    """Entropy, nats [k], of the partition of m equally likely rows by equal keys; keys int64 [k, m]."""
    chunk = max(1, _CHUNK // keys.shape[1])
    return np.concatenate([_partition_entropies(keys[at : at + chunk]) for at in range(0, len(keys), chunk)])


def _partition_entropies(keys: npt.NDArray[np.int64]) -> Array:
    count, m = keys.shape
    ordered = np.sort(keys, axis=1)
    first = np.ones((count, m), dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=first[:, 1:])
    starts = np.flatnonzero(first)
    sizes = np.diff(starts, append=count * m)
    logs = np.bincount(starts // m, weights=sizes * np.log(sizes), minlength=count)
    return np.asarray(math.log(m) - logs / m, dtype=np.float64)
