"""SGLang's pool of recurrent states: what a slot takes, and how the memory is split between slots and tokens.

Source: SGLang 0.5.23, sglang/srt/configs/mamba_utils.py; mem_cache/kv_cache_configurator.py
`_handle_max_mamba_cache`, `_calculate_mamba_ratio` (lines 3062-3409)
"""

from dataclasses import dataclass

from kvplan.core.dtypes import parse_dtype
from kvplan.core.engines.deployment import Deployment
from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import LinearAttention, ShortConvolution, StateMixer
from kvplan.core.units import ceil_div

DEFAULT_RATIO = 0.9
"""`mamba_full_memory_ratio`: bytes for states over bytes for keys and values."""
SLOTS_PER_REQUEST = 3
"""With the radix cache: the running state, and those that prefixes keep; without it, 1."""
SPECULATIVE_REQUESTS = 48
"""`max_running_requests` where drafting is on and the user says nothing."""
UNSAID_DRAFTS = {"ngram": 12}

_KNOWN = ("mamba2", "gated_delta", "kda", "lightning")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSplit:
    """How a stage's memory is shared out before tokens are counted."""

    slots: int
    """`max_mamba_cache_size`; the pool allocates one more."""
    draft_bytes: int
    """States that verification of drafts keeps for every drafted token."""
    kv_bytes: int
    """What is left for keys and values."""


def slot_bytes(mixer: StateMixer, deployment: Deployment, tp: int) -> int:
    """One slot of one layer: a convolution's columns but the newest in bf16, states in fp32.

        conv   (inner + 2 · G · N) / tp · (columns − 1) · 2       G = key heads, extended to tp where tp does not divide
        state  heads / tp · value_dim · key_dim · 4

    Qwen3-Next: 36 · (8192 · 3 · 2 + 32 · 128 · 128 · 4) = 77,266,944 bytes. Raises UnsupportedError for a recurrence
    whose slots kvplan does not know.

    Source: configs/mamba_utils.py `Mamba2StateShape.create`, `KimiLinearStateShape.create`, `mamba2_state_dtype`
    """
    switches = deployment.switches
    conv_bits = parse_dtype(switches.conv_dtype).bits if switches.conv_dtype else 16
    if isinstance(mixer, ShortConvolution):
        return ceil_div(ceil_div(mixer.channels, tp) * (mixer.columns - 1) * conv_bits, 8)
    if mixer.recurrence not in _KNOWN:
        message = f"kvplan does not know how SGLang holds the states of a {mixer.recurrence or 'recurrent'} layer"
        raise UnsupportedError(message, hint="`--engine exact` counts what they need")
    state_bits = parse_dtype(switches.state_dtype).bits if switches.state_dtype else 32
    heads = ceil_div(mixer.num_heads, tp)
    states = heads * mixer.value_dim * mixer.key_dim + ceil_div(mixer.vector_elements, tp)
    columns = max(mixer.conv_columns - 1, 0)
    return ceil_div(states * state_bits, 8) + ceil_div(_conv_channels(mixer, tp) * columns * conv_bits, 8)


def _conv_channels(mixer: LinearAttention, tp: int) -> int:
    """Channels of one rank: groups that tp does not divide are held by every rank that needs them."""
    groups = mixer.num_key_heads
    if not mixer.conv_channels or groups % tp == 0:
        return ceil_div(mixer.conv_channels, tp)
    inner = mixer.conv_channels - 2 * groups * mixer.key_dim
    return ceil_div(inner + 2 * max(groups, tp) * mixer.key_dim, tp)


def slots_per_request(deployment: Deployment) -> int:
    """Slots that SGLang sets aside for each running request."""
    return 1 if deployment.switches.prefix_caching is False else SLOTS_PER_REQUEST


def split(rest_bytes: int, per_slot: int, deployment: Deployment) -> StateSplit:
    """Slots for states, and what remains for keys and values, of what is left after weights.

        budget = rest · r / (1 + r);  slots = ⌊(budget − slot) / slot⌋;  kv = rest − (slots + 1) · slot

    Without the radix cache and with `max_running_requests`, slots are that number. With D drafted tokens a request
    the budget also pays for (slots / 3 + 1) · D states that verification writes. All is 0 where there is no
    room for one request.
    """
    if not per_slot:
        return StateSplit(slots=0, draft_bytes=0, kv_bytes=rest_bytes)
    switches = deployment.switches
    drafted = drafted_tokens(deployment)
    requests = running_limit(deployment)
    ratio = slots_per_request(deployment)
    if switches.prefix_caching is False and requests is not None:
        slots = in_flight = requests
    else:
        share = DEFAULT_RATIO if switches.mamba_full_memory_ratio is None else switches.mamba_full_memory_ratio
        budget = rest_bytes * share / (1 + share)
        slots = int((budget - per_slot * (1 + drafted)) // (per_slot * (1 + drafted / ratio)))
        in_flight = min(SPECULATIVE_REQUESTS if requests is None else requests, slots // ratio)
    draft_bytes = per_slot * (in_flight + 1) * drafted
    left = rest_bytes - (slots + 1) * per_slot - draft_bytes
    if slots < ratio or left <= 0:
        return StateSplit(slots=0, draft_bytes=0, kv_bytes=0)
    return StateSplit(slots=slots, draft_bytes=draft_bytes, kv_bytes=left)


def drafted_tokens(deployment: Deployment) -> int:
    """`speculative_num_draft_tokens`: those that are drafted, and the one that follows; 0 without drafting.

    Where the user says nothing, 4 (12 for n-grams); Llama's 8 bear on nothing, for it has neither states nor windows.

    Source: arg_groups/speculative_hook.py `_auto_choose_speculative_params`, `_handle_ngram`
    """
    method, drafted = deployment.switches.speculative_method, deployment.switches.num_speculative_tokens
    if method is None:
        return 0
    return drafted + 1 if drafted else UNSAID_DRAFTS.get(method, 4)


def running_limit(deployment: Deployment) -> int | None:
    """`max_running_requests` of one data-parallel rank of attention, as the user gave it."""
    switches = deployment.switches
    if switches.max_num_seqs is None:
        return None
    return switches.max_num_seqs // (deployment.dp if switches.attention_dp else 1)
