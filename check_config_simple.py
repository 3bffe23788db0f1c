"""Checks the settings: `python check_config_simple.py`; `--online` asks the service, `--example` prints a `.env`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "src"))

from k2think.cli import main  # noqa: E402 - the package is found by the line above

if __name__ == "__main__":
    main(["check", *sys.argv[1:]], beside=HERE)
