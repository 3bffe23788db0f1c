"""`python -m k2think`: the same as the command `k2think`."""

from k2think.cli import main

if __name__ == "__main__":
    main()
