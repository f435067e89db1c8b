"""The most probable filling, by the model's own exact log-probability alone."""

from unmask.engine.searching.beam import search
from unmask.engine.searching.draws import best_drawn, best_of, judged
from unmask.engine.searching.hypotheses import Found
from unmask.engine.searching.ways import backtrack

__all__ = ["Found", "backtrack", "best_drawn", "best_of", "judged", "search"]
