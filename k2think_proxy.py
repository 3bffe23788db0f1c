"""Serves the gateway: `python k2think_proxy.py`, from any folder; options as of `k2think serve`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "src"))

from k2think.cli import main  # noqa: E402 - the package is found by the line above

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]], beside=HERE)
