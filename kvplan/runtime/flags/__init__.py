"""What engines' arguments say in kvplan's words, and the other way round: one explicit table per engine."""

from kvplan.runtime.flags.read import options_from_args

__all__ = ["options_from_args"]
