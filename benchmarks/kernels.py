"""Time of the compiled kernels beside what bounds them: the command ``xbarsim bench`` with all its options."""

from __future__ import annotations

import sys

from xbarsim.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "bench")
    main()
