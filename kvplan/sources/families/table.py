"""Every model type that kvplan reads, and its reader: the whole support list in one look.

To add a family: a function `Facts -> Reading` in a file of its lineage, its line here, and a catalog file or a
row of `tests/data/truth` that holds it to the framework's own figures. A reader is imported when it is asked for.
"""

from collections.abc import Callable
from importlib import import_module

from kvplan.core.errors import UnsupportedError
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.parts import Reading

Reader = Callable[[Facts], Reading]

READERS: dict[str, str] = {
    "RefinedWeb": "falcon.read_refined_web",
    "RefinedWebModel": "falcon.read_refined_web",
    "aria": "vision_language.read_aria",
    "axk1": "deepseek.read_axk1",
    "aya_vision": "cohere_vision.read_aya_vision",
    "bart": "bart.read_bart",
    "beam": "qwen_moe.read_beam",
    "bert": "bert.read_bert",
    "bert-generation": "bert.read_bert_generation",
    "big_bird": "bert.read_big_bird",
    "blenderbot": "bart.read_blenderbot",
    "blenderbot-small": "bart.read_blenderbot_small",
    "cohere": "cohere.read_cohere",
    "cohere2": "cohere.read_cohere2",
    "cohere2_moe": "cohere.read_cohere2_moe",
    "cohere2_vision": "cohere_vision.read_cohere2_vision",
    "deepseek_v2": "deepseek.read_deepseek_v2",
    "deepseek_v3": "deepseek.read_deepseek_v3",
    "deepseek_v32": "deepseek.read_deepseek_v32",
    "deepseek_vl": "deepseek_vl.read_deepseek_vl",
    "deepseek_vl_hybrid": "deepseek_vl.read_deepseek_vl_hybrid",
    "electra": "bert.read_electra",
    "ernie": "bert.read_ernie",
    "ernie4_5": "ernie.read_ernie4_5",
    "ernie4_5_moe": "ernie.read_ernie4_5_moe",
    "exaone4": "exaone.read_exaone4",
    "exaone4_5": "vision_language.read_exaone4_5",
    "exaone_moe": "exaone.read_exaone_moe",
    "falcon": "falcon.read_falcon",
    "fsmt": "bart.read_fsmt",
    "gemma": "gemma.read_gemma",
    "gemma2": "gemma.read_gemma2",
    "gemma3": "gemma.read_gemma3",
    "gemma3_text": "gemma.read_gemma3_text",
    "gemma3n_text": "gemma3n.read_gemma3n_text",
    "gemma4": "gemma4.read_gemma4",
    "gemma4_assistant": "gemma4.read_gemma4_assistant",
    "gemma4_text": "gemma4.read_gemma4_text",
    "gemma4_unified": "gemma4.read_gemma4_unified",
    "gemma4_unified_assistant": "gemma4.read_gemma4_assistant",
    "gemma4_unified_text": "gemma4.read_gemma4_unified_text",
    "glm": "glm.read_glm",
    "glm4": "glm.read_glm4",
    "glm46v": "glm4v.read_glm46v",
    "glm4_moe": "glm.read_glm4_moe",
    "glm4_moe_lite": "deepseek.read_glm4_moe_lite",
    "glm4v": "glm4v.read_glm4v",
    "glm4v_moe": "glm4v.read_glm4v",
    "glm4v_moe_text": "glm4v.read_glm4v_moe_text",
    "glm4v_text": "glm4v.read_glm4v_text",
    "glm_moe_dsa": "deepseek.read_glm_moe_dsa",
    "glm_ocr": "glm4v.read_glm4v",
    "glm_ocr_text": "glm4v.read_glm_ocr_text",
    "glmga": "glm4v.read_glm46v",
    "got_ocr2": "ocr.read_got_ocr2",
    "gpt2": "gpt.read_gpt2",
    "gpt_neox": "gpt.read_gpt_neox",
    "gpt_oss": "gpt_oss.read_gpt_oss",
    "granite": "granite.read_granite",
    "granite_swa": "granite.read_granite_swa",
    "granitemoe": "granite.read_granitemoe",
    "granitemoe_swa": "granite.read_granitemoe_swa",
    "granitemoeshared": "granite.read_granitemoeshared",
    "hy_v3": "sigmoid_moe.read_hy_v3",
    "hyperclovax": "granite.read_hyperclovax",
    "hyperclovax_vision_v2": "vision_language.read_hyperclovax_vision_v2",
    "idefics2": "idefics.read_idefics2",
    "idefics3": "idefics.read_idefics3",
    "internvl": "internvl.read_internvl",
    "kolibri1": "qwen_moe.read_kolibri1",
    "laguna": "sigmoid_moe.read_laguna",
    "lighton_ocr": "ocr.read_lighton_ocr",
    "llama": "llama.read_llama",
    "llama4": "llama4.read_llama4",
    "llama4_text": "llama4.read_llama4_text",
    "llava": "llava.read_llava",
    "llava_next": "llava.read_llava_next",
    "llava_next_video": "llava.read_llava_next_video",
    "llava_onevision": "llava.read_llava_onevision",
    "m2m_100": "bart.read_m2m_100",
    "marian": "bart.read_marian",
    "mbart": "bart.read_mbart",
    "megatron-bert": "bert.read_megatron_bert",
    "mellum": "qwen_moe.read_mellum",
    "mimo_v2_flash": "sigmoid_moe.read_mimo_v2_flash",
    "minicpm3": "minicpm3.read_minicpm3",
    "minimax_m2": "sigmoid_moe.read_minimax_m2",
    "mistral": "llama.read_mistral",
    "mistral3": "llava.read_mistral3",
    "mistral4": "deepseek.read_mistral4",
    "mixtral": "llama.read_mixtral",
    "mvp": "bart.read_mvp",
    "ovis2": "vision_language.read_ovis2",
    "paddleocr_vl": "ocr.read_paddleocr_vl",
    "paddleocr_vl_text": "ocr.read_paddleocr_vl_text",
    "paligemma": "paligemma.read_paligemma",
    "pegasus": "bart.read_pegasus",
    "phi3": "llama.read_phi3",
    "plbart": "bart.read_plbart",
    "pp_chart2table": "ocr.read_got_ocr2",
    "qianfan_ocr": "internvl.read_internvl",
    "qwen2": "llama.read_qwen2",
    "qwen2_5_vl": "qwen_vl.read_qwen2_5_vl",
    "qwen2_5_vl_text": "qwen_vl.read_qwen2_vl_text",
    "qwen2_moe": "qwen_moe.read_qwen2_moe",
    "qwen2_vl": "qwen_vl.read_qwen2_vl",
    "qwen2_vl_text": "qwen_vl.read_qwen2_vl_text",
    "qwen3": "llama.read_qwen3",
    "qwen3_5": "qwen3_next.read_qwen3_5",
    "qwen3_5_moe": "qwen3_next.read_qwen3_5",
    "qwen3_5_moe_text": "qwen3_next.read_qwen3_5_moe_text",
    "qwen3_5_text": "qwen3_next.read_qwen3_5_text",
    "qwen3_moe": "qwen_moe.read_qwen3_moe",
    "qwen3_next": "qwen3_next.read_qwen3_next",
    "qwen3_vl": "qwen_vl.read_qwen3_vl",
    "qwen3_vl_moe": "qwen_vl.read_qwen3_vl",
    "qwen3_vl_moe_text": "qwen_vl.read_qwen3_vl_moe_text",
    "qwen3_vl_text": "qwen_vl.read_qwen3_vl_text",
    "rembert": "bert.read_rembert",
    "roc_bert": "bert.read_roc_bert",
    "roformer": "bert.read_roformer",
    "shieldgemma2": "paligemma.read_shieldgemma2",
    "smolvlm": "idefics.read_idefics3",
    "solar_open": "sigmoid_moe.read_solar_open",
    "t5": "t5.read_t5",
    "video_llava": "llava.read_video_llava",
    "vipllava": "llava.read_vipllava",
    "youtu": "minicpm3.read_youtu",
}


def reader_of(model_type: str) -> Reader:
    """The reader of a model type. Raises UnsupportedError for one that kvplan does not read."""
    if model_type not in READERS:
        raise UnsupportedError(f"model type `{printable(model_type)}` is not supported", hint=_hint(model_type))
    module, _, function = READERS[model_type].partition(".")
    reader: Reader = getattr(import_module(f"kvplan.sources.families.{module}"), function)
    return reader


def _hint(model_type: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(model_type, READERS, n=3)
    known = f"close to it: {', '.join(close)}; " if close else ""
    return f"{known}kvplan reads {len(READERS)} model types (`kvplan models --types`)"
