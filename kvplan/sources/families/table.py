"""Every model type that kvplan reads, and its reader: the whole support list in one look.

To add a family: a function `Facts -> Reading` in a file of its lineage, its line here, and a catalog file or a
row of `tests/data/truth` that holds it to the framework's own figures.
"""

from collections.abc import Callable

from kvplan.sources.facts import Facts
from kvplan.sources.families import bart, bert, deepseek, falcon, gemma, gpt, gpt_oss, llama, qwen3_next, t5
from kvplan.sources.families.parts import Reading

Reader = Callable[[Facts], Reading]

READERS: dict[str, Reader] = {
    "RefinedWeb": falcon.read_refined_web,
    "RefinedWebModel": falcon.read_refined_web,
    "bart": bart.read_bart,
    "bert": bert.read_bert,
    "deepseek_v2": deepseek.read_deepseek_v2,
    "deepseek_v3": deepseek.read_deepseek_v3,
    "falcon": falcon.read_falcon,
    "gemma": gemma.read_gemma,
    "gemma2": gemma.read_gemma2,
    "gemma3": gemma.read_gemma3,
    "gemma3_text": gemma.read_gemma3_text,
    "gpt2": gpt.read_gpt2,
    "gpt_neox": gpt.read_gpt_neox,
    "gpt_oss": gpt_oss.read_gpt_oss,
    "llama": llama.read_llama,
    "mistral": llama.read_mistral,
    "mixtral": llama.read_mixtral,
    "phi3": llama.read_phi3,
    "qwen2": llama.read_qwen2,
    "qwen3": llama.read_qwen3,
    "qwen3_next": qwen3_next.read_qwen3_next,
    "t5": t5.read_t5,
}
