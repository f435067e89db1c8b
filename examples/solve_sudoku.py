"""How much does the order matter? Puzzles with 17 clues, solved by the shipped model in five ways.

    python examples/solve_sudoku.py [--num 50] [--model sudoku]

Puzzles are generated afresh (the first run compiles the generator); about a minute for 50 of them on one core. One cell per call in
random order, by confidence or by margin takes as many calls as there are empty cells. A threshold fills all cells at once of which the
model is sure; backtracking goes back to the best choice that it passed by. It printed:

RESULT
"""

import argparse

import torch

import unmask
from unmask import scores, selectors
from unmask.data import sudoku

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--num", type=int, default=50, help="puzzles")
parser.add_argument("--model", default="sudoku", help="a shipped model or a folder")
