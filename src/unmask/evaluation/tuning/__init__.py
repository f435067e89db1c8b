"""What is the best way to generate with a model? Plans for any order, and the choice among samplers, by measurement."""

from unmask.evaluation.tuning.costs import Grid, StepCosts, in_blocks, measure, planned

__all__ = ["Grid", "StepCosts", "in_blocks", "measure", "planned"]
