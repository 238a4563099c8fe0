"""The inverse of a plan: what is given is held, what is not is searched.

`answer` what is asked and answered · `trial` one start of the engine · `search` bisections over it · `places` layouts
and formats · `changes` what would make it fit · `fitting` all of it together.
"""

from kvplan.core.fit.answer import Bound, Change, CurvePoint, Fit, Share, Wanted
from kvplan.core.fit.fitting import fit

__all__ = ["Bound", "Change", "CurvePoint", "Fit", "Share", "Wanted", "fit"]
