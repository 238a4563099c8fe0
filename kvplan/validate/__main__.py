"""`python -m kvplan.validate …` is `kvplan validate …`: the form that torchrun starts several processes of."""

from kvplan.cli import cli

if __name__ == "__main__":
    import sys

    cli(["validate", *sys.argv[1:]], prog_name="kvplan")
