"""A resampler: learnt queries that attend once over all patches. Qwen-VL and MiniCPM-V have one.

Source: Qwen/Qwen-VL-Chat, visual.py `Resampler`; openbmb/MiniCPM-V-2_6, resampler.py `Resampler`.
"""

from kvplan.core.model import Weight
from kvplan.sources.families.bricks.parts import norm, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose


def resampler(
    name: str, queries: int, hidden: int, seen: int, *, kept_positions: int = 0, projects: bool = False
) -> tuple[Weight, ...]:
    """Queries of `hidden` elements over patches of `seen`; `kept_positions` are those that the class has as weights.

    With `projects` a norm and a matrix follow.
    """
    ends = (*norm("ln_post", hidden, bias=True), loose("proj", hidden, hidden))
    weights = (
        loose("query", queries, hidden),
        *((loose("pos_embed", kept_positions, hidden),) if kept_positions else ()),
        *(replicated("kv_proj", hidden, seen, "vision") if hidden != seen else ()),
        loose("attn.in_proj_weight", 3 * hidden, hidden),
        loose("attn.in_proj_bias", 3 * hidden),
        *replicated("attn.out_proj", hidden, hidden, "vision", bias=True),
        *norm("ln_q", hidden, bias=True),
        *norm("ln_kv", hidden, bias=True),
        *(ends if projects else ()),
    )
    return in_tower(name, weights)
