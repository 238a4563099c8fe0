"""How long an attention call takes: the bytes that it must move, the arithmetic that it must do, two measured ceilings.

    t = t0 + max(bytes / (bytes_share · BW), flops / (flops_share · F))

Plain numbers in, plain numbers out. Of latent attention decode reads one head: key_dim is latent + rope, value_dim is
latent. Counts are of one layer on one GPU.

Source: Williams et al. 2009, "Roofline", https://doi.org/10.1145/1498765.1498785, and a fixed time per call
"""

from dataclasses import dataclass

from kvplan.core.errors import InputError
from kvplan.core.units import smaller

MAX_SHARE = 1.5
"""The most of a measured ceiling that a call is believed to reach: above it, the ceiling was measured wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedModel:
    """What a kind of call makes of the machine's ceilings; a share is None where no measured call was bound by it."""

    overhead_seconds: float
    bytes_share: float | None
    flops_share: float | None
    read_bytes_per_second: float
    matmul_flops_per_second: float

    def seconds(self, num_bytes: float, flops: float) -> float:
        """t0 + the longer of moving and computing.

        A side without a share is left out, as in the calls that the model was made from. Raises InputError for a call
        on which this side alone takes longer than that, even at `MAX_SHARE` of its ceiling.
        """
        sides = (
            ("memory", num_bytes / self.read_bytes_per_second, self.bytes_share),
            ("arithmetic", flops / self.matmul_flops_per_second, self.flops_share),
        )
        longest = max((at_ceiling / share for _, at_ceiling, share in sides if share is not None), default=0.0)
        seconds = self.overhead_seconds + longest
        for name, at_ceiling, share in sides:
            if share is None and at_ceiling / MAX_SHARE > seconds:
                raise InputError(f"no call that {name} binds was measured", hint="fit the model to calls like this one")
        return seconds


def visible_tokens(num_tokens: int, window: int | None = None) -> int:
    """Tokens that the last query sees: min(n, W), its own included."""
    return num_tokens if window is None else smaller(num_tokens, window)


def visible_pairs(num_tokens: int, window: int | None = None) -> int:
    """Pairs of a query and a key that causal attention over n tokens looks at.

        w·(w + 1)/2 + (n − w)·w,   w = min(W, n)

    A later chunk of a prompt has the pairs of all tokens less those of the tokens before it.

    Source: the sum of min(i, W) for i = 1 … n
    """
    w = visible_tokens(num_tokens, window)
    return w * (w + 1) // 2 + (num_tokens - w) * w


def attention_flops(num_pairs: int, *, num_heads: int, key_dim: int, value_dim: int, batch: int = 1) -> int:
    """Two matrix products over the pairs: 2 · batch · heads · pairs · (key_dim + value_dim).

    A multiply and an add are two flops; the softmax is not counted.

    Source: Dao 2023, FlashAttention-2, §4.1, 4 · n² · head_dim · heads, halved where causal, https://arxiv.org/abs/2307.08691
    """
    return 2 * batch * num_heads * num_pairs * (key_dim + value_dim)


def decode_flops(
    num_tokens: int, *, num_heads: int, key_dim: int, value_dim: int, window: int | None = None, batch: int = 1
) -> int:
    """One new token per sequence against the tokens that it sees."""
    seen = visible_tokens(num_tokens, window)
    return attention_flops(seen, num_heads=num_heads, key_dim=key_dim, value_dim=value_dim, batch=batch)


def decode_bytes(num_tokens: int, *, bytes_per_token: int, window: int | None = None, batch: int = 1) -> int:
    """What one decode step must read of one layer's cache: batch · min(n, W) · bytes per token.

    The query and the output are left out: some thousandths of it.
    """
    return batch * visible_tokens(num_tokens, window) * bytes_per_token


def prefill_flops(
    num_tokens: int, *, num_heads: int, key_dim: int, value_dim: int, window: int | None = None, batch: int = 1
) -> int:
    """A whole prompt of n tokens per sequence, causal."""
    pairs = visible_pairs(num_tokens, window)
    return attention_flops(pairs, num_heads=num_heads, key_dim=key_dim, value_dim=value_dim, batch=batch)


def prefill_bytes(
    num_tokens: int,
    *,
    num_heads: int,
    key_dim: int,
    value_dim: int,
    element_bytes: int,
    bytes_per_token: int,
    num_keys: int | None = None,
    batch: int = 1,
) -> int:
    """Queries, keys and values read once, the output written once.

        batch · (n · heads · (key_dim + value_dim) · element + keys · bytes per token)

    `bytes_per_token` is that of keys and values; `num_keys` is what a chunk of n queries looks at, itself included.
    """
    keys = num_tokens if num_keys is None else num_keys
    per_query = num_heads * (key_dim + value_dim) * element_bytes
    return batch * (num_tokens * per_query + keys * bytes_per_token)


def state_step_bytes(state_bytes: int, batch: int = 1) -> int:
    """One step of a recurrent state: read once, written once, whatever the length."""
    return 2 * batch * state_bytes
