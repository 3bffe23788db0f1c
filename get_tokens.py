"""Makes tokens of accounts: `python get_tokens.py [ACCOUNTS_FILE] [TOKENS_FILE]`, from any folder."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "src"))

from k2think.cli import main  # noqa: E402 - the package is found by the line above

if __name__ == "__main__":
    main(["tokens", "fetch", *sys.argv[1:]], beside=HERE)
