"""A molecule from SMILES as a drawing: atoms, bonds and places in the plane, each atom tied to the symbol that named it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ATOMS = 80
TOKEN = re.compile(r"\[[^\]]*\]|Br|Cl|[BCNOPSFIbcnops]|%\d\d|\d|[-=#:/\\().~$]")
ATOM = re.compile(r"\[|[A-Za-z]")
ORDERS = {"=": 2, "#": 3, ":": 1, "$": 4}


@dataclass
class Graph:
    """Atoms (label, place in the text), bonds (one, other, order), and those bonds that close a ring."""

    labels: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    bonds: list[tuple[int, int, int]] = field(default_factory=list)
    closing: list[tuple[int, int]] = field(default_factory=list)


def parsed(smiles: str) -> Graph | None:
    """The graph of a SMILES text, hydrogens left out; None for text that is none."""
    graph, last, order, branches, open_rings = Graph(), -1, 1, list[int](), dict[str, tuple[int, int]]()
    at = 0
    while at < len(smiles):
        found = TOKEN.match(smiles, at)
        if found is None:
            return None
        token, at = found[0], found.end()
        if ATOM.match(token):
            _atom(graph, token, found.start(), last, order)
            last, order = len(graph.labels) - 1, 1
        elif token == "(":
            branches.append(last)
        elif token == ")":
            if not branches:
                return None
            last = branches.pop()
        elif token[0] in "%0123456789":
            if last < 0:
                return None
            _ring(graph, token, last, order, open_rings)
            order = 1
        elif token == ".":
            last = -1
        else:
            order = ORDERS.get(token, 1)
    whole = graph.labels and not branches and not open_rings and len(graph.labels) <= MOST_ATOMS
    return graph if whole else None


def _atom(graph: Graph, token: str, place: int, last: int, order: int) -> None:
    graph.labels.append(_label(token))
    graph.places.append(place)
    if last >= 0:
        graph.bonds.append((last, len(graph.labels) - 1, order))


def _label(token: str) -> str:
    """How an atom is written: carbon not at all, others by their symbol and charge."""
    inside = token.strip("[]")
    found = re.match(r"\d*([A-Z][a-z]?|[a-z])", inside)
    symbol = (found[1] if found else inside).capitalize()
    charge = re.search(r"[+-]+\d*$", inside)
    name = symbol + (charge[0].replace("-", "\N{MINUS SIGN}") if charge else "")
    return "" if name == "C" else name


def _ring(graph: Graph, token: str, last: int, order: int, open_rings: dict[str, tuple[int, int]]) -> None:
    name = token.lstrip("%")
    if name not in open_rings:
        open_rings[name] = (last, order)
        return
    first, before = open_rings.pop(name)
    if first != last:
        graph.bonds.append((first, last, max(order, before)))
        graph.closing.append((first, last))


def drawing(texts: Sequence[str]) -> dict[str, Any] | None:
    """What the script draws of a molecule whose positions have these texts; None where they are no SMILES.

    x, y in hundredths of a bond, labels, bonds as triples, and for each atom the position that named it.
    """
    graph = parsed("".join(texts))
    if graph is None:
        return None
    owners = [k for k, text in enumerate(texts) for _ in text]
    places = np.round(100 * laid_out(graph)).astype(int)
    return {
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "l": graph.labels,
        "b": [list(bond) for bond in graph.bonds],
        "p": [owners[place] for place in graph.places],
    }


# --- places in the plane --------------------------------------------------------------------------


def laid_out(graph: Graph, rounds: int = 80) -> NDArray[np.float64]:
    """Places [atoms, 2] whose distances are as near as can be to those of a drawing with bonds of length 1.

    Rings are to be regular, chains zigzag. Stress is majorised (SMACOF) from a start by classical scaling.
    """
    hops = distances(len(graph.labels), [(a, b) for a, b, _ in graph.bonds])
    wanted = np.sqrt(0.75 * hops**2 + 0.25 * (hops % 2 == 1))
    weight = 1 / np.maximum(hops, 1) ** 2
    for ring in rings(graph):
        _regular(ring, wanted, weight)
    np.fill_diagonal(weight, 0)
    return turned(_majorised(_scaled(wanted), wanted, weight, rounds))


def distances(count: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Bonds between atoms along the shortest way; 4 more than the longest of these between molecules."""
    far = np.full((count, count), np.inf)
    np.fill_diagonal(far, 0)
    for a, b in pairs:
        far[a, b] = far[b, a] = 1
    for k in range(count):
        far = np.minimum(far, far[:, k : k + 1] + far[k : k + 1])
    longest = far[np.isfinite(far)].max()
    return np.where(np.isfinite(far), far, longest + 4)


def rings(graph: Graph) -> list[list[int]]:
    """For each bond that closes a ring, the shortest ring through it."""
    pairs = [(a, b) for a, b, _ in graph.bonds]
    return [ring for bond in graph.closing if (ring := _way([p for p in pairs if p != bond], *bond))]


def _way(pairs: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Atoms along the shortest way, both ends included; none where there is none."""
    before, front = {start: -1}, [start]
    while front and end not in before:
        reached = [(b if a == atom else a, atom) for atom in front for a, b in pairs if atom in (a, b)]
        fresh = {new: old for new, old in reached if new not in before}
        before |= fresh
        front = list(fresh)
    way = [end] if end in before else []
    while way and way[-1] != start:
        way.append(before[way[-1]])
    return way


def _regular(ring: list[int], wanted: NDArray[np.float64], weight: NDArray[np.float64]) -> None:
    """The distances of a regular ring, in place; they count more than others."""
    size = len(ring)
    steps = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    here = np.ix_(ring, ring)
    wanted[here] = np.sin(np.pi * steps / size) / np.sin(np.pi / size)
    weight[here] = 4.0


def _scaled(wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Classical scaling to two dimensions."""
    count = len(wanted)
    middle = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * middle @ wanted**2 @ middle)
    top = np.sqrt(np.maximum(values[-2:], 1e-3)) * vectors[:, -2:] if count > 1 else np.zeros((1, 2))
    return top + 1e-3 * np.sin(np.arange(2 * count)).reshape(count, 2)


def _majorised(
    at: NDArray[np.float64], wanted: NDArray[np.float64], weight: NDArray[np.float64], rounds: int
) -> NDArray[np.float64]:
    """Places after so many rounds, each of which lowers the stress."""
    inverse = np.linalg.pinv(np.diag(weight.sum(1)) - weight)
    for _ in range(rounds):
        gaps = np.linalg.norm(at[:, None] - at[None], axis=-1)
        pull = np.where(gaps > 1e-9, -weight * wanted / np.maximum(gaps, 1e-9), 0)
        np.fill_diagonal(pull, 0)
        np.fill_diagonal(pull, -pull.sum(1))
        at = inverse @ (pull @ at)
    return at


def turned(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same, centred, with the longer side along."""
    at = at - at.mean(0)
    _, axes = np.linalg.eigh(at.T @ at)
    found: NDArray[np.float64] = at @ axes[:, ::-1]
    return found
