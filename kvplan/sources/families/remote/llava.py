"""LLaVA as its repositories have it, with its tower named and not described: llava_llama (VILA too), llava_mistral,
llava_qwen, mineru2_qwen.

Source: haotian-liu/LLaVA, llava/model/llava_arch.py; LLaVA-VL/LLaVA-NeXT, llava/model/multimodal_encoder/; NVlabs/VILA,
llava/model/; opendatalab/MinerU, mineru/model/vlm_hf_model/modeling_mineru2.py.
"""

from itertools import pairwise

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.parts import Reading, norm, reads_tied, replicated
from kvplan.sources.families.remote.parts import under_another_name
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.clip import clip_tower
from kvplan.sources.families.towers.named import SIGLIP, named_part
from kvplan.sources.families.towers.siglip import vision_tower
from kvplan.sources.families.towers.table import tower_of


def read_llava_llama(facts: Facts) -> Reading:
    """LLaVA 1.5 and 1.6 over Llama, sizes at the top level; VILA, where each part has a config of its own.

    The tower is counted though some checkpoints leave it to its own repository: the class loads it.

    Source: haotian-liu/LLaVA, llava/model/language_model/llava_llama.py; NVlabs/VILA, llava/model/llava_arch.py
    """
    if facts.has("llm_cfg"):
        return _read_vila(facts)
    return _read_flat(facts, "llama", family="llavallama")


def read_llava_mistral(facts: Facts) -> Reading:
    """LLaVA 1.6 over Mistral.

    Source: haotian-liu/LLaVA, llava/model/language_model/llava_mistral.py
    """
    return _read_flat(facts, "mistral", family="llavamistral")


def read_llava_qwen(facts: Facts) -> Reading:
    """LLaVA-NeXT and LLaVA-OneVision over Qwen2: a SigLIP tower goes without its last layer and its head.

    Source: LLaVA-VL/LLaVA-NeXT, llava/model/language_model/llava_qwen.py, multimodal_encoder/siglip_encoder.py
    """
    return _read_flat(facts, "qwen2", family="llavaqwen")


def read_mineru2_qwen(facts: Facts) -> Reading:
    """MinerU 2.0: LLaVA-OneVision's parts around Qwen2 0.5B.

    Source: opendatalab/MinerU, mineru/model/vlm_hf_model/modeling_mineru2.py `Mineru2QwenModel`
    """
    return _read_flat(facts, "qwen2", family="mineru2qwen")


def _read_flat(facts: Facts, model_type: str, *, family: str) -> Reading:
    """A text model of `model_type`, whose sizes and those of what sees for it stand side by side."""
    hidden, seen = facts.positive("hidden_size"), facts.positive("mm_hidden_size")
    name = "vision_tower.vision_tower"
    tower = named_part(facts, "mm_vision_tower")
    if tower.positive("hidden_size") != seen:
        raise facts.wrong("mm_hidden_size", seen, f"the tower's width, {tower.positive('hidden_size')}")
    if tower.model_type == SIGLIP:
        shorter = tower.positive("num_hidden_layers") - 1
        tower = named_part(facts, "mm_vision_tower", num_hidden_layers=shorter, vision_use_head=False)
        weights = vision_tower(tower, name)
    else:
        weights = clip_tower(tower, name)
    projector = in_tower("mm_projector", _projector(facts, facts.text("mm_projector_type"), seen, hidden))
    merging = facts.text("mm_patch_merge_type", default="flat")
    newline = (loose("image_newline", hidden),) if "unpad" in merging else ()
    return under_another_name(facts, model_type, weights, projector, newline, family=family)


def _read_vila(facts: Facts) -> Reading:
    """`llm_cfg`, `vision_tower_cfg` and `mm_projector_cfg`, each a model of its own."""
    text, vision = language_model(facts, "llm_cfg"), facts.part("vision_tower_cfg")
    kind, owner = facts.nested("mm_projector_cfg").text("mm_projector_type"), facts.nested("mm_projector_cfg")
    projector = in_tower("mm_projector", _projector(owner, kind, vision.positive("hidden_size"), text.hidden_size))
    tower = tower_of(vision)
    tied = reads_tied(facts.part("llm_cfg"))
    return multimodal(facts, text, tower, projector, tied=tied, family="llavallama", language_model="Model")


def _projector(facts: Facts, kind: str, seen: int, hidden: int) -> tuple[Weight, ...]:
    """What takes patches into the text model, by the name of its kind.

    Source: NVlabs/VILA, llava/model/multimodal_projector/base_projector.py `MultimodalProjector`
    """
    if kind == "identity":
        return ()
    if kind in ("mlp_downsample", "mlp_downsample_2x2_fix"):
        merged = 4 * seen
        return (*norm("layers.1", merged, bias=True), *_linears(merged, hidden, hidden))
    if kind == "mlp_downsample_3x3_fix":
        merged, inner = 9 * seen, 3 * seen
        norms = (*norm("layers.1", merged, bias=True), *norm("layers.4", inner, bias=True))
        return (*norms, *_linears(merged, inner, hidden, hidden))
    depth = kind.removeprefix("mlp").removesuffix("x_gelu")
    if kind == "linear":
        depth = "1"
    elif kind != f"mlp{depth}x_gelu" or not depth.isdecimal() or not 1 <= int(depth) <= 9:
        known = "`identity`, `linear`, `mlp2x_gelu`, `mlp_downsample`, or `mlp_downsample_3x3_fix`"
        raise facts.wrong("mm_projector_type", kind, known)
    return _linears(seen, *[hidden] * int(depth))


def _linears(*widths: int) -> tuple[Weight, ...]:
    """A linear from each width to the next."""
    linears = [
        replicated(f"linear.{i}", out, seen, "vision", bias=True) for i, (seen, out) in enumerate(pairwise(widths))
    ]
    return tuple(weight for pieces in linears for weight in pieces)
