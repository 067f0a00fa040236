"""``python -m xbarsim``: the command line."""

from xbarsim.cli import main

if __name__ == "__main__":
    main()
