"""Plans by their public name, `unmask.plans`; they live in `unmask.planning.plans`."""

from unmask.planning.plans import *  # noqa: F403
