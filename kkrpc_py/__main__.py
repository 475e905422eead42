"""`python -m kkrpc_py`: the command line."""

import sys

from kkrpc_py.cli import main

if __name__ == "__main__":
    sys.exit(main())
