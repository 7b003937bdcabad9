"""`python -m umuxstack` is `umux`."""

import sys

from umuxstack.cli import main

if __name__ == "__main__":
    sys.exit(main())
