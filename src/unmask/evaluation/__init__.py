"""How good it is, and what is the best way to use it: judges, variants, shares, consistency, orders found, tuning."""

from unmask.evaluation import consistency, judges, letters, mutants, searched, shares, tuning

__all__ = ["consistency", "judges", "letters", "mutants", "searched", "shares", "tuning"]
