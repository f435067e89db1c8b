"""How good it is: samples by judges, variants of a sequence by its model, what it knows by the share that is hidden."""

from unmask.evaluation import consistency, judges, letters, mutants, shares, tuning

__all__ = ["consistency", "judges", "letters", "mutants", "shares", "tuning"]
