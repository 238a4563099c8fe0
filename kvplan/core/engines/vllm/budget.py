"""vLLM's account of one GPU: device · utilisation − weights − what its profile run finds = the pool.

Source: vLLM 0.33, v1/worker/gpu_worker.py 641-820, v1/worker/utils.py 716-761
"""

from dataclasses import replace
from math import ceil

from kvplan.core.device import visible_bytes
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.pool import Budget
from kvplan.core.engines.vllm.encoder import without_towers
from kvplan.core.engines.vllm.measured import CONTEXT
from kvplan.core.engines.vllm.overheads import taken, untaken
from kvplan.core.engines.vllm.pool import stages
from kvplan.core.engines.vllm.rules import Rules, numbers
from kvplan.core.errors import InputError
from kvplan.core.measured import loaded
from kvplan.core.model import ModelSpec


def budget(model: ModelSpec, deployment: Deployment, weights: tuple[int, ...], rules: Rules) -> tuple[Budget, ...]:
    """One account a pipeline stage.

        usable = ⌈device · utilisation⌉

    Raises InputError where the GPU's memory is not known.
    """
    if deployment.gpu is None:
        raise InputError("without a GPU there is no account of its memory", hint="e.g. `--gpu H100`")
    device = visible_bytes(deployment.gpu)
    share = rules.default_share if deployment.memory_share is None else deployment.memory_share
    release = numbers(rules)
    model = without_towers(model, deployment.switches, release)
    accounts: list[Budget] = []
    known: dict[object, Budget] = {}
    bounds = stages(model, deployment)
    for stage, num_bytes in enumerate(weights):
        start, stop = bounds[stage]
        # Of many stages most are alike.
        counts = tuple((id(layer), n) for layer, n in model.layer_counts(start, stop))
        alike = num_bytes, start == 0, stop == model.num_layers, counts
        if alike not in known:
            item = loaded(num_bytes, offloaded_bytes=deployment.switches.cpu_offload_bytes)
            known[alike] = Budget(
                stage=stage,
                device_bytes=device,
                usable_bytes=ceil(device * share),
                taken=(item, *taken(model, deployment, release, stage)),
                untaken=untaken(model, deployment, release, stage),
                before=(CONTEXT,),
            )
        accounts.append(replace(known[alike], stage=stage))
    return tuple(accounts)
