"""How good it is: samples by judges, variants of a sequence by its model."""

from unmask.evaluation import judges, letters, mutants

__all__ = ["judges", "letters", "mutants"]
