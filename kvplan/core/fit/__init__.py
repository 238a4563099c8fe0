"""The inverse of a plan: what is given is held, what is not is searched.

`answer` what is asked and answered · `trial` one start of the engine · `search` bisections over it · `places` layouts
and formats · `changes` what would make it fit · `fitting` all of it together ·
`by_itself` what an engine changes by itself · `told` the answer as an engine's options.
"""

from kvplan.core.fit.answer import Bound, Change, CurvePoint, Fit, Share, Wanted
from kvplan.core.fit.fitting import fit
from kvplan.core.fit.told import told

__all__ = ["Bound", "Change", "CurvePoint", "Fit", "Share", "Wanted", "fit", "told"]
