"""``python -m unmask`` is the command `unmask`."""

import sys

from unmask.command_line.app import main

if __name__ == "__main__":
    sys.exit(main())
