"""vLLM's pool: blocks of one GPU's memory, tokens and requests as its log prints them.

Source: vLLM 0.33, v1/core/kv_cache_planning.py `get_kv_cache_configs`, v1/core/kv_cache_utils.py 1061-1154
"""

from dataclasses import dataclass, replace

from kvplan.core.engines.accelerators import accelerator_notes
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.pool import KVPool, PoolGroup
from kvplan.core.engines.vllm import packed
from kvplan.core.engines.vllm.blocks import BLACKWELL, block_size, shared_page, sliding_block
from kvplan.core.engines.vllm.defaults import default_max_num_batched_tokens
from kvplan.core.engines.vllm.devices import architecture
from kvplan.core.engines.vllm.drafts import draft_modules, draft_notes, keeps_hybrid
from kvplan.core.engines.vllm.groups import Group, Layers, bytes_per_block, groups_of
from kvplan.core.engines.vllm.pages import Holding, Spec, blocks_for
from kvplan.core.engines.vllm.rules import Rules, numbers
from kvplan.core.engines.vllm.specs import has_attention, has_states, layer_specs
from kvplan.core.errors import InputError
from kvplan.core.mixers import LinearAttention
from kvplan.core.model import ModelSpec
from kvplan.core.stages import stage_bounds

GDN_KEY_DIM = 128
"""The width of keys that Blackwell's kernel for gated delta rules takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one model's caches lie in vLLM's pool."""

    groups: list[Group]
    holding: Holding
    stages: list[tuple[int, int]]
    block_size: int
    release: tuple[int, ...]
    is_packed: bool
    """Pages of unlike size lie side by side in one block."""

    @property
    def bytes_per_block(self) -> list[int]:
        """Of each pipeline stage."""
        return [self.block_bytes(start, stop) for start, stop in self.stages]

    def block_bytes(self, start: int = 0, stop: int | None = None) -> int:
        """One block of the layers from `start` to before `stop`."""
        if self.is_packed:
            return packed.block_bytes(self.groups, self.release, start, stop)
        return bytes_per_block(self.groups, start, stop)

    def request_blocks(self, num_tokens: int) -> int:
        """Blocks that one request of so many tokens holds at most, in all groups."""
        return sum(self._blocks(num_tokens))

    def printed_blocks(self, num_tokens: int) -> int:
        """The same as the log's concurrency counts them."""
        if not self.is_packed:
            return self.request_blocks(num_tokens)
        return packed.printed_blocks(self.groups, self._blocks(num_tokens), self.release, self.stages[0][1])

    def checked_blocks(self, num_blocks: int, num_bytes: int, rules: Rules, *, given: bool) -> int:
        """Blocks that the start-up check sets against those of a request; `given`: their number is not worked out."""
        if self.is_packed:
            sizes = self.bytes_per_block
            there = [num_blocks * size if given else num_bytes for size in sizes]
            charged = [packed.checked_bytes(self.groups, self.release, start, stop) for start, stop in self.stages]
            each = zip(there, sizes, charged, strict=True)
            return min((has - rules.null_block * size) // max(1, charge) for has, size, charge in each)
        if rules.checks_whole_model:
            num_blocks = max(num_bytes, 0) // max(1, self.block_bytes())
        return num_blocks - rules.null_block

    def _blocks(self, num_tokens: int) -> list[int]:
        return [blocks_for(group.first, num_tokens, self.holding) for group in self.groups]


def layout(model: ModelSpec, deployment: Deployment, rules: Rules) -> Layout:
    """Groups, and what decides how many blocks a request takes."""
    caching = _caches_prefixes(model, deployment, rules)
    aligned = caching and has_states(model)
    size = block_size(model, deployment, rules, aligned=aligned)
    specs = layer_specs(model, deployment, rules, size, aligned=aligned)
    page = shared_page(model, deployment, rules, size)
    if page is not None:
        specs = [(layer, _padded_to(spec, page, model, deployment, rules)) for layer, spec in specs]
    hybrid, release, is_packed = keeps_hybrid(model, deployment), numbers(rules), packed.is_packed(specs)
    groups = packed.packed_groups(specs, release) if is_packed else []
    return Layout(
        groups=groups or groups_of(_with_states_padded(specs), rules, hybrid=hybrid),
        holding=_holding(model, deployment, rules, aligned=aligned),
        stages=stages(model, deployment),
        block_size=size,
        release=release,
        is_packed=is_packed,
    )


def pool(model: ModelSpec, deployment: Deployment, kv_memory_bytes: int | None, rules: Rules) -> KVPool:
    """What `kv_memory_bytes` of each GPU hold.

        blocks       = min over stages of ⌊memory / bytes per block⌋
        concurrency  = blocks / blocks of one request of max_model_len
        tokens       = ⌊concurrency · max_model_len⌋      before 0.21: blocks // groups · block size · dcp

    Raises InputError without a size: vLLM's pool is what memory leaves.
    """
    if kv_memory_bytes is None:
        raise InputError("vLLM's pool is as large as the memory that it gets", hint="give `kv_memory_bytes`, or a GPU")
    laid = layout(model, deployment, rules)
    per_block = laid.bytes_per_block
    length = deployment.max_model_len
    num_blocks = min((max(kv_memory_bytes, 0) // size for size in per_block if size), default=1)
    given = deployment.switches.num_gpu_blocks_override
    num_blocks = given or num_blocks
    request = laid.request_blocks(length)
    concurrency = _concurrency(laid, num_blocks, laid.printed_blocks(length), length, rules)
    usable = laid.checked_blocks(num_blocks, kv_memory_bytes, rules, given=given is not None)
    longest = _longest(laid, usable, length)
    return KVPool(
        engine="vllm",
        version=rules.version,
        kv_memory_bytes=kv_memory_bytes,
        allocated_bytes=num_blocks * max(per_block),
        block_size=_printed_block_size(laid),
        bytes_per_block=max(per_block),
        num_blocks=num_blocks,
        num_tokens=_tokens(laid, num_blocks, concurrency, length, rules),
        max_concurrency=concurrency,
        max_model_len=length,
        blocks_per_request=request,
        fits_one=longest >= length,
        longest_request=longest,
        groups=_pool_groups(laid, length),
        notes=_notes(model, laid, deployment, rules),
    )


def held(model: ModelSpec, deployment: Deployment, num_tokens: int, num_requests: int, rules: Rules) -> tuple[int, ...]:
    """Bytes of each stage that so many requests of `num_tokens` hold at most."""
    laid = layout(model, replace(deployment, max_model_len=_largest(num_tokens)), rules)
    blocks = num_requests * laid.request_blocks(num_tokens)
    return tuple(blocks * size for size in laid.bytes_per_block)


def kinds(model: ModelSpec, deployment: Deployment, num_tokens: int, num_requests: int, rules: Rules) -> dict[str, int]:
    """The same on one GPU by kind of layer; `padding` is what narrower groups leave of their blocks."""
    laid = layout(model, deployment, rules)
    per_block, found = laid.block_bytes(), {"padding": 0}
    for group in laid.groups:
        blocks = num_requests * blocks_for(group.first, num_tokens, laid.holding)
        for _, spec in group.layers:
            kind = spec.row or spec.kind
            found[kind] = found.get(kind, 0) + blocks * spec.page_bytes
        found["padding"] += blocks * (per_block - group.page_bytes())
    return found


def stages(model: ModelSpec, deployment: Deployment) -> list[tuple[int, int]]:
    """[start, stop) of each stage, as dealt by vLLM or as VLLM_PP_LAYER_PARTITION says.

    Raises InputError for a partition that is not one of the model's layers.
    """
    given = deployment.switches.stage_layers
    if not given:
        return stage_bounds(model.num_layers, deployment.pp)
    if len(given) != deployment.pp or sum(given) != model.num_layers or min(given) < 1:
        message = f"{', '.join(map(str, given))} are not {model.num_layers} layers on {deployment.pp} stages"
        raise InputError(message, hint="one number of layers for each stage")
    starts = [sum(given[:i]) for i in range(len(given))]
    return [(start, start + count) for start, count in zip(starts, given, strict=True)]


def _largest(num_tokens: int) -> int:
    return int(num_tokens) if not hasattr(num_tokens, "max") else int(num_tokens.max())


def _caches_prefixes(model: ModelSpec, deployment: Deployment, rules: Rules) -> bool:
    """As asked; by default not for a model without attention."""
    asked = deployment.switches.prefix_caching
    if asked is not None:
        return asked
    return (rules.caches_state_prefixes and has_attention(model)) if has_states(model) else True


def _holding(model: ModelSpec, deployment: Deployment, rules: Rules, *, aligned: bool) -> Holding:
    switches = deployment.switches
    batched = default_max_num_batched_tokens(deployment, numbers(rules))
    steps = 1
    if rules.in_flight_steps:
        steps = deployment.pp + 1 if deployment.pp > 1 else 2
        if switches.async_scheduling is False:
            steps = deployment.pp
    modules = draft_modules(model) if switches.speculative_method == "mtp" else 1
    return Holding(
        in_flight_tokens=batched * steps,
        extra_tokens=max(0, switches.num_speculative_tokens - 1) if modules > 1 else 0,
        encoder_tokens=batched,
        dcp=deployment.dcp * deployment.pcp,
        aligned=aligned,
        num_speculative_tokens=switches.num_speculative_tokens,
    )


def _with_states_padded(specs: Layers) -> Layers:
    """A state's page is padded to that of the attention whose blocks were enlarged to hold it."""
    pages = [spec.page_bytes for _, spec in specs if spec.token_bytes and spec.kind != "indexer"]
    if not pages:
        return specs
    return [
        (layer, replace(spec, padded_bytes=max(pages)) if spec.recurrent and spec.page_bytes < max(pages) else spec)
        for layer, spec in specs
    ]


def _padded_to(spec: Spec, page_bytes: int, model: ModelSpec, deployment: Deployment, rules: Rules) -> Spec:
    """A sliding layer chooses blocks of its own: the most tokens whose page fits that of the quantised layers.

    Source: vLLM 0.33, attention.py 626-668, where some layers keep the model's dtype
    """
    if spec.recurrent and spec.page_bytes < page_bytes:
        return replace(spec, padded_bytes=page_bytes)
    if spec.kind != "sliding":
        return spec
    tokens = sliding_block(model, deployment, rules, spec.token_bytes, page_bytes)
    return replace(spec, block_size=tokens, padded_bytes=max(page_bytes, tokens * spec.token_bytes))


def _concurrency(laid: Layout, num_blocks: int, request: int, length: int, rules: Rules) -> float:
    if not rules.rounds_requests:
        return num_blocks * laid.block_size / length
    return num_blocks / request if request else 0.0


def _tokens(laid: Layout, num_blocks: int, concurrency: float, length: int, rules: Rules) -> int:
    if rules.tokens_of_requests:
        return int(concurrency * length)
    size = min((group.first.block_size for group in laid.groups), default=laid.block_size)
    return num_blocks // max(1, len(laid.groups)) * size * laid.holding.dcp


def _longest(laid: Layout, usable: int, length: int) -> int:
    """By bisection: the most tokens of one request, up to `length`, whose blocks are there; 0 where there is none."""
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if laid.request_blocks(middle) <= usable else (low, middle - 1)
    return low


def _printed_block_size(laid: Layout) -> int:
    full = [group.first.block_size for group in laid.groups if group.first.window is None and not group.first.recurrent]
    return full[0] if full else laid.block_size


def _pool_groups(laid: Layout, length: int) -> tuple[PoolGroup, ...]:
    width = max((len(group.layers) for group in laid.groups), default=0)
    same_pages = len({spec.page_bytes for group in laid.groups for _, spec in group.layers}) == 1
    return tuple(
        PoolGroup(
            kind=group.first.kind,
            num_layers=len(group.layers),
            block_size=group.first.block_size,
            page_bytes=group.first.page_bytes,
            blocks_per_request=blocks_for(group.first, length, laid.holding),
            window=group.first.window,
            padding_layers=width - len(group.layers) if same_pages else 0,
        )
        for group in laid.groups
    )


def _waits_for_cuda_13(model: ModelSpec, deployment: Deployment) -> bool:
    """Gated delta rules with keys of 128 on Blackwell (layers/mamba/gdn/qwen_gdn_linear_attn.py 248-266)."""
    mixers = [mixer for layer in model.layers for mixer in layer.mixers if isinstance(mixer, LinearAttention)]
    gated = any(mixer.recurrence == "gated_delta" and mixer.key_dim == GDN_KEY_DIM for mixer in mixers)
    return gated and int(architecture(deployment)) in (BLACKWELL, 12)


def _notes(model: ModelSpec, laid: Layout, deployment: Deployment, rules: Rules) -> tuple[str, ...]:
    notes = draft_notes(deployment, numbers(rules))
    windows = any(group.first.window is not None for group in laid.groups)
    if windows and deployment.gpu is None and deployment.switches.max_num_batched_tokens is None:
        notes.append(
            f"windows keep what is in flight, {laid.holding.in_flight_tokens:,} tokens without a GPU; name the GPU, or"
            " `max_num_batched_tokens`"
        )
    if len(laid.groups) > 1 and not rules.tokens_of_requests:
        notes.append(
            '"GPU KV cache size" of this version is blocks // groups · block size, which is not what requests of'
            " max_model_len can hold: go by the concurrency"
        )
    if rules.prefill_checkpoints and laid.holding.aligned and _waits_for_cuda_13(model, deployment):
        notes.append(
            "with CUDA 13, vLLM from 0.33 on keeps one more block of states a request on this GPU, and blocks are"
            " multiples of 64"
        )
    widths = [len(group.layers) for group in laid.groups]
    if not laid.is_packed and (padding := sum(max(widths, default=0) - width for width in widths)):
        notes.append(f"the groups reserve {padding} layers more than there are")
    return (*notes, *accelerator_notes(deployment))
