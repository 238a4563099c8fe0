"""What changed in vLLM's planning between versions: one record of rules for each known point.

Sources: the releases' own `vllm/v1/core/kv_cache_utils.py` (from 0.33 on `kv_cache_planning.py`), and public start-up
logs where a release was not read. A version between two points has the rules of the older.
"""

from dataclasses import dataclass, replace

from kvplan.core.engines.versions import chosen, release


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One version's."""

    version: str
    windows: bool = True
    """A sliding layer is charged for its window; before, for all tokens."""
    hybrid_groups: bool = True
    """Unlike layers stand in groups of their own."""
    states: bool = True
    """Recurrent states lie in the pool; before, in tensors of their own."""
    widen: tuple[int, int] = (3, 2)
    """Groups are as wide as the widest kind of layer where that has fewer than so many times the narrowest's."""
    tokens_of_requests: bool = True
    """"GPU KV cache size" is requests times their length; before, the blocks of one group times its block size."""
    rounds_requests: bool = True
    """Concurrency counts whole blocks of a request; before, tokens over tokens."""
    null_block: bool = True
    """The start-up check holds one block back."""
    checks_whole_model: bool = False
    """The start-up check sets one rank's memory against the layers of all pipeline stages."""
    in_flight_steps: bool = True
    """A window also keeps the tokens of steps that are scheduled ahead."""
    caches_state_prefixes: bool = True
    """Prefix caching is on for recurrent models, too, where nothing else is said."""
    prefill_checkpoints: bool = True
    """A request also keeps a checkpoint of its states, at tokens that recurrences' chunks demand."""
    mla_padded_to: int = 0
    """Bytes that a token's latent is padded to a multiple of."""
    mla: bool = True
    """Latents are cached as latents; before, as the keys and values of every head."""
    subtracts_graphs: bool = True
    """An estimate of the CUDA graphs' memory is taken off before the pool is sized."""
    default_share: float = 0.92


# Dates of what changed: checkpoints for Mamba-2 vllm-project/vllm#57329 (2026-09), state prefixes by default #50991
# (2026-08, after 0.26.0), tokens in flight and the null block #47728 and #47272 (2026-07, in 0.26.0).
_NOW = Rules(version="0.33")
_WITH_CHECKPOINTS = replace(_NOW, version="0.31")
_BEFORE_CHECKPOINTS = replace(_NOW, version="0.27", prefill_checkpoints=False)
_OPT_IN = replace(_BEFORE_CHECKPOINTS, version="0.26", caches_state_prefixes=False)
_ONE_STEP = replace(_OPT_IN, version="0.21", in_flight_steps=False, null_block=False)
_BLOCKS = replace(_ONE_STEP, version="0.17", tokens_of_requests=False, subtracts_graphs=False, default_share=0.9)
_NARROW = replace(_BLOCKS, version="0.10", widen=(5, 4), checks_whole_model=True)
_FIRST_GROUPS = replace(_NARROW, version="0.9.2", widen=(1, 1))
_UNIFORM = replace(_FIRST_GROUPS, version="0.8", hybrid_groups=False, states=False, rounds_requests=False)
_V0 = replace(_UNIFORM, version="0.7", windows=False, mla_padded_to=256)
_NO_MLA = replace(_V0, version="0.1", mla=False, mla_padded_to=0)

RULES = {
    rules.version: rules
    for rules in (
        _NO_MLA, _V0, _UNIFORM, _FIRST_GROUPS, _NARROW, _BLOCKS, _ONE_STEP, _OPT_IN, _BEFORE_CHECKPOINTS,
        _WITH_CHECKPOINTS, _NOW,
    )
}  # fmt: skip
"""From old to new."""


def rules_of(version: str | None) -> tuple[Rules, str, str | None]:
    """(rules, the version that they are of, the one that was asked for where it is newer than all that is known)."""
    found, newer = chosen("vllm", version, tuple(RULES))
    asked = version.removeprefix("v") if version else found
    return replace(RULES[found], version=asked), found if newer else asked, newer


def numbers(rules: Rules) -> tuple[int, ...]:
    """The release as numbers, e.g. (0, 19, 0)."""
    return release(rules.version)
