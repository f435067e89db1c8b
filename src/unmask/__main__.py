"""The command `unmask`, and ``python -m unmask``."""

import os
import sys


def main() -> int:
    """Runs the command; Ctrl-C while it is being loaded ends in one line as well."""
    try:
        from unmask.command_line.arguments.interrupts import at_once, own_process

        own_process()
        with at_once():
            from unmask.command_line.app import main as run
        code = run()
    except KeyboardInterrupt:
        print("unmask: stopped", file=sys.stderr)
        code = 130
    if code == 130:  # what else is loaded may want long to end, or end with a signal instead of a code
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
