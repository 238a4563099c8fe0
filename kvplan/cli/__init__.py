"""The roof: thin commands over `kvplan.api` and `kvplan.report`; what is heavy is imported inside them."""

from kvplan.cli.main import cli, main

__all__ = ["cli", "main"]
