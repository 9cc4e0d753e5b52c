"""``python -m poolbench.cli``, which earlier commits have as well: a bisection starts all of them so."""

from poolbench.__main__ import command

if __name__ == "__main__":
    command()
