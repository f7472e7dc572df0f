"""``python -m netchan``: the command line.

Layer: cli (L8). Nothing of its own.
"""

import sys

from netchan.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
