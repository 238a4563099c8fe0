"""What torch.compile takes of vLLM's profile run where its cache is empty: a copy of the table of the vocabulary.

The first start compiles within the run that is measured. Inductor times alternatives of each kernel on tensors that it
makes up; the kernel that looks tokens up is given a table as large as the model's. The peak of torch's allocations then
is the table, not the pass: Qwen3-8B on RTX 4090 with vLLM 0.27.1 printed 1.18 GiB at the first start and 0.19 at the
next, and its table takes 1.16. Before 0.31 the freed table also could stay pinned by a small block that was cut from
it, and so was taken for weights: Qwen2.5-0.5B with 0.27.1 consumed 0.25 GiB more, the size of its table.

Sources: vLLM 0.21-0.33, config/compilation.py (`benchmark_combo_kernel`), v1/worker/gpu_worker.py
`determine_available_memory`; vllm-project/vllm#54122, #54383, #54209; start-up logs of both kinds
(`tests/data/engines/observations.csv`, column `compiled`).
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div

COMPILES_WITH_COPIES, KEEPS_BLOCKS_WHOLE = (0, 21), (0, 31)
"""The releases from which on kernels are timed so, and from which on no block is cut from what was freed."""


def table_bytes(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], *, first: bool) -> int:
    """Bytes of the table that kernels are timed on; 0 where none is looked up in the compiled part.

    bytes = rows of the vocabulary / tp · hidden · dtype

    That is: on the first stage, of a model that reads text alone (others look tokens up before), unless nothing is
    compiled (`enforce_eager`).
    """
    if not first or release < COMPILES_WITH_COPIES or deployment.switches.enforce_eager:
        return 0
    if any(weight.part != "embeddings" for weight in model.embeddings):
        return 0
    elements = max(
        (
            ceil_div(weight.shape[0], deployment.tp) * weight.shape[1]
            for weight in model.embeddings
            if len(weight.shape) == 2 and weight.shape[0] == model.vocab_size
        ),
        default=0,
    )
    return ceil_div(elements * deployment.dtype.bits, 8)
