"""The console script: Ctrl-C ends it in one line from its first moment, while the command line is still imported.

What belongs here: nothing else; every import here is paid before Ctrl-C is understood. The commands are in main.py.
"""

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from data_platform.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
