"""`python -m client.cli`: the same as `prozess`, for where scripts are not on the path."""

import sys

from client.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
