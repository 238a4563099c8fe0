"""What vLLM refuses to start with.

Source: vLLM 0.33, config/model.py `verify_with_parallel_config`; config/parallel.py 592-608; config/scheduler.py;
layers/vocab_parallel_embedding.py, which pads the vocabulary to 64; layers/linear.py `divide`
"""

from kvplan.core.engines.accelerators import check_accelerator
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.defaults import default_max_num_batched_tokens
from kvplan.core.engines.vllm.draft_checks import check_drafts
from kvplan.core.engines.vllm.formats import check_formats
from kvplan.core.engines.vllm.kernels import check_kernels, check_sharing
from kvplan.core.engines.vllm.pool import stages
from kvplan.core.engines.vllm.rules import Rules, numbers
from kvplan.core.engines.vllm.schemes import check_scheme
from kvplan.core.engines.vllm.specs import PER_HEAD
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.mixers import LatentAttention, StateMixer
from kvplan.core.model import ModelSpec, Weight
from kvplan.core.units import round_up

VOCABULARY_PADDING = 64
TURING_SINCE = (0, 21)
LEAST_CAPABILITY = (7.0, 7.5)
"""Before that release and from it on: docs/getting_started/installation/gpu.cuda.inc.md of 0.21."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""config/lora.py `MaxLoRARanks`."""
NEVER: tuple[int, ...] = (0,)
REMOVED = {
    "t5": NEVER, "mt5": NEVER, "umt5": NEVER, "longt5": NEVER, "switch_transformers": NEVER, "udop": NEVER,
    "recurrent_gemma": NEVER, "mllama": (0, 11), "bart": (0, 11), "mbart": (0, 11), "minimax": (0, 24),
    "minimax_text_01": (0, 24), "minimax_m1": (0, 24), "bamba": (0, 24), "qwen": (0, 24), "internlm": (0, 24),
    "baichuan": (0, 24), "xverse": (0, 24), "dots1": (0, 24), "grok-1": (0, 25), "aquila": (0, 25),
    "telechat": (0, 26), "persimmon": (0, 26), "fuyu": (0, 26), "plamo2": (0, 27), "ouro": (0, 27), "arctic": (0, 29),
    "chameleon": (0, 29), "mpt": (0, 29),
}  # fmt: skip
"""Model types that vLLM does not run from these releases on (model_executor/models/registry.py 845-898)."""


def check(model: ModelSpec, deployment: Deployment, rules: Rules) -> None:
    """Raises InputError for what vLLM would refuse, with the reason that it gives; UnsupportedError for a model."""
    check_accelerator(deployment.gpu, "vLLM", LEAST_CAPABILITY[numbers(rules) >= TURING_SINCE])
    _check_architecture(model, rules)
    check_scheme(model, deployment, rules)
    _check_heads(model, deployment)
    _check_widths(model, deployment)
    _check_context_parallel(model, deployment)
    check_formats(model, deployment, rules)
    _check_scheduler(deployment, rules)
    _check_adapters(deployment)
    check_drafts(model, deployment, numbers(rules))
    check_kernels(model, deployment, rules)
    check_sharing(model, stages(model, deployment), rules)


def _check_architecture(model: ModelSpec, rules: Rules) -> None:
    gone = REMOVED.get(model.model_type)
    if gone is not None and numbers(rules) >= gone:
        hint = "a plugin may; `--engine exact` counts what the model needs"
        raise UnsupportedError(f"vLLM {rules.version} does not run `{model.model_type}`", hint=hint)


def _check_heads(model: ModelSpec, deployment: Deployment) -> None:
    tp = deployment.tp
    for layer in model.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, StateMixer):
                continue
            if mixer.num_heads % tp:
                _refuse(f"{mixer.num_heads} attention heads", model, tp)
            heads = mixer.num_kv_heads
            if not isinstance(mixer, LatentAttention) and heads % tp and tp % heads:
                _refuse(f"{heads} KV heads", model, tp)


def _check_widths(model: ModelSpec, deployment: Deployment) -> None:
    tp = deployment.tp
    if tp > 1 and model.vocab_size and round_up(model.vocab_size, VOCABULARY_PADDING) % tp:
        _refuse(f"a vocabulary of {model.vocab_size:,}", model, tp)
    for layer in model.layers:
        for weight in layer.weights:
            if _cut_unevenly(weight, tp) and not (deployment.switches.expert_parallel and weight.part == "experts"):
                _refuse(f"`{weight.name}`, {weight.shape[weight.split.axis]:,} wide,", model, tp)  # type: ignore[union-attr]


def _cut_unevenly(weight: Weight, tp: int) -> bool:
    """Heads may be replicated; a matrix of a feed-forward part may not."""
    if weight.split is None or weight.part not in ("mlp", "experts"):
        return False
    return bool(weight.shape[weight.split.axis] % tp)


def _check_context_parallel(model: ModelSpec, deployment: Deployment) -> None:
    dcp, tp, pcp = deployment.dcp, deployment.tp, deployment.pcp
    if dcp > 1 and pcp > 1:
        # config/parallel.py 594-611
        if dcp not in (pcp, tp * pcp):
            raise InputError(f"beside `pcp` {pcp}, `dcp` {dcp} is not 1, {pcp} or tp · pcp", hint=f"`dcp` {pcp}")
        raise UnsupportedError(
            "how vLLM shares out a cache over `dcp` and `pcp` at once is not known", hint="one of both"
        )
    if dcp > 1 and tp % dcp:
        raise InputError(f"`dcp` {dcp} does not divide `tp` {tp}", hint="decode context parallelism uses its ranks")
    mixers = [mixer for layer in model.layers for mixer in layer.mixers if not isinstance(mixer, StateMixer)]
    per_head = model.model_type in PER_HEAD
    grouped = [mixer.num_kv_heads for mixer in mixers if per_head or not isinstance(mixer, LatentAttention)]
    replicas = tp // min(grouped) if grouped else dcp
    if dcp > 1 and replicas < dcp:
        message = f"`dcp` {dcp} needs {dcp} replicas of each KV head, but `tp` {tp} makes {replicas}"
        raise InputError(message, hint=f"at most `dcp` {max(1, replicas)}")
    if deployment.pcp > 1 and grouped:
        raise InputError("`pcp` needs latent attention: no other backend has it", hint="use `dcp`, `tp` or `pp`")


def _check_scheduler(deployment: Deployment, rules: Rules) -> None:
    sequences = deployment.switches.max_num_seqs
    tokens = default_max_num_batched_tokens(deployment, numbers(rules))
    if sequences is not None and tokens < sequences:
        message = f"`max_num_batched_tokens` {tokens} is less than `max_num_seqs` {sequences}"
        raise InputError(message, hint="raise the one or lower the other")
    switches = deployment.switches
    if switches.num_speculative_tokens and switches.speculative_method is None and switches.draft_model is None:
        message = f"{switches.num_speculative_tokens} speculative tokens, but nothing says what drafts them"
        raise InputError(message, hint="`speculative_method`: mtp, eagle, eagle3, ngram …")


def _check_adapters(deployment: Deployment) -> None:
    rank = deployment.switches.max_lora_rank
    if deployment.switches.max_loras and rank not in LORA_RANKS:
        ranks = ", ".join(map(str, LORA_RANKS))
        raise InputError(f"vLLM has no slots for adapters of rank {rank}", hint=f"`max_lora_rank` is one of {ranks}")


def _refuse(what: str, model: ModelSpec, tp: int) -> None:
    raise InputError(f"{what} of `{model.id}` cannot be dealt out to `tp` {tp}", hint="a `tp` that divides it")
