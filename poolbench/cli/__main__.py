"""``python -m poolbench.cli``."""

from poolbench.cli import main

if __name__ == "__main__":
    main(prog_name="poolbench")
