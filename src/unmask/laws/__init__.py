"""Exact laws: solvable distributions that are denoisers, with samples, log-probabilities, profiles; in nats.

======================================  ===========================================================
law                                     what it is good for
======================================  ===========================================================
Table, Support                          anything that can be listed
Markov, HMM, TreeIsing                  local dependence; any length
Permutation, OneHot, Balanced           constraints; large steps early, small steps late
Polya, Mixture, NoisyRepetition         a hidden parameter; small steps early, large steps late
CurieWeiss                              a phase transition at coupling 1
Parity, Repetition, ReedSolomon         one jump in the profile, anywhere
Hamming74, Sudoku4                      small real constraint problems
LatentParity                            large TC and DTC, yet few steps are enough
LatentsAndObservations, NotAllEqual     hard subproblems, met or avoided by the order
======================================  ===========================================================
"""

from unmask.laws.base import Law, estimate_entropies
from unmask.laws.codes import Code, LatentParity, Parity, ReedSolomon, Repetition
from unmask.laws.exchangeable import (
    Balanced,
    Mixture,
    NoisyRepetition,
    OneHot,
    Permutation,
    Polya,
)
from unmask.laws.latents import LatentsAndObservations, NotAllEqual
from unmask.laws.magnet import CurieWeiss
from unmask.laws.markov import Markov, stationary
from unmask.laws.table import Hamming74, Sudoku4, Support, Table, tabulated
from unmask.laws.trees import HMM, TreeIsing

__all__ = [
    "HMM",
    "Balanced",
    "Code",
    "CurieWeiss",
    "Hamming74",
    "LatentParity",
    "LatentsAndObservations",
    "Law",
    "Markov",
    "Mixture",
    "NoisyRepetition",
    "NotAllEqual",
    "OneHot",
    "Parity",
    "Permutation",
    "Polya",
    "ReedSolomon",
    "Repetition",
    "Sudoku4",
    "Support",
    "Table",
    "TreeIsing",
    "estimate_entropies",
    "stationary",
    "tabulated",
]
