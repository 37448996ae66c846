"""What the Flex Template's launcher starts, with the template's parameters as options of `faultline label`."""

import sys

from pipelines.cli import main

if __name__ == "__main__":
    sys.exit(main(["label", "--no-progress", *sys.argv[1:]]))
