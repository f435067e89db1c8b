"""How good it is: samples by judges, variants of a sequence by its model, what it knows by the share that is hidden."""

from unmask.evaluation import judges, letters, mutants, searched, shares

__all__ = ["judges", "letters", "mutants", "searched", "shares"]
