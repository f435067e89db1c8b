"""``python -m unmask.evaluation.harness``: the command `lm_eval`, which then knows the model type ``unmask``."""

from __future__ import annotations

import sys

from unmask.base.checkpoints import one_line
from unmask.evaluation.harness import register_model


def main() -> int:
    """Runs `lm_eval` with the words of the command line."""
    if register_model is None:
        print("unmask: lm_eval is not installed: pip install 'unmask[lm-eval]'", file=sys.stderr)
        return 2
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except ValueError as error:
        print(f"unmask: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
