"""`python -m hf_gateway` is the command `hf-gateway`."""

import sys

from hf_gateway.cli import main

if __name__ == "__main__":
    sys.exit(main())
