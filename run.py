#!/usr/bin/env python3
"""The BIDS App entry point: run.py bids_dir output_dir {participant,group}."""

import sys

from hedypet_bids.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
