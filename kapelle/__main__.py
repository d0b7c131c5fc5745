"""`python -m kapelle`: the command line."""

from kapelle.cli import main

if __name__ == "__main__":  # worker processes load the main module under another name
    main()
