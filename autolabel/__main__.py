"""`python -m autolabel`: the command line, where its script is not on the path."""

import sys

from autolabel.app.main import main

if __name__ == "__main__":
    sys.exit(main())
