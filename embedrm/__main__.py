"""``python -m embedrm`` is the command line."""

from embedrm.cli import main

if __name__ == "__main__":
    main()
