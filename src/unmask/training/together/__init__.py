"""One training in several processes: which world they make, what they agree on, and who does what of a step."""
