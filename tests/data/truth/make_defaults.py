"""Write down what the config classes of transformers say where a config.json is silent: `class_defaults.jsonl`.

    python make_defaults.py > ../../../kvplan/sources/families/class_defaults.jsonl

One line a model type, in alphabetical order: `fields` are the values that the class assigns before it works anything
out of the others (null where it works it out), `aliases` are other spellings of a field, `objects` say which model
type a nested config has (`fixed`: whatever it states) and what it holds where it is left out. What cannot decide a shape (dropouts,
tokens, activations of the output) is left out. Needs transformers 5.23.
"""

import dataclasses
import json
import os
import sys
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig

IGNORED = set(
    """return_dict output_hidden_states output_attentions use_cache dtype torch_dtype chunk_size_feed_forward
    transformers_version architectures id2label label2id problem_type name_or_path pretraining_tp rope_scaling
    rope_parameters initializer_range output_router_logits cache_implementation summary_type summary_use_proj
    summary_first_dropout summary_activation scale_attn_weights reorder_and_upcast_attn""".split()  # noqa: SIM905
)


def decides(name: str, value: object) -> bool:
    """Whether a field can decide a shape, a count or a class."""
    if name in IGNORED or name.endswith(
        ("_token_id", "_token_index", "_token", "_dropout", "_eps", "_loss_coef", "_std")
    ):
        return False
    if "dropout" in name or name.endswith("_prob") or isinstance(value, float):
        return False
    if isinstance(value, list | tuple):
        return all(isinstance(item, int | str) and not isinstance(item, bool) for item in value) and len(value) < 200
    return value is None or isinstance(value, int | str)


def fields_of(config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """The values that the class assigns, before `__post_init__`."""
    found = {}
    for field in dataclasses.fields(config_class):
        value: Any = None
        if field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if isinstance(value, tuple):
            value = list(value)
        if decides(field.name, value) and json_safe(value):
            found[field.name] = value
    return found


def json_safe(value: object) -> bool:
    """Whether it can be written down as it is."""
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def objects_of(config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """Nested configs: the model type of each, and what the class writes into one that is left out."""
    found = {}
    for name, nested in (getattr(config_class, "sub_configs", None) or {}).items():
        if getattr(nested, "model_type", ""):
            found[name] = {"model_type": nested.model_type}
    for name, spec in (getattr(config_class, "sub_configs_defaults", None) or {}).items():
        stated = found.setdefault(name, {})
        if spec.model_type or getattr(spec.config_class, "model_type", ""):
            stated["model_type"] = spec.model_type or spec.config_class.model_type
        if getattr(spec.config_class, "model_type", None):
            stated["fixed"] = True
        stated |= {k: v for k, v in (spec.init_kwargs or {}).items() if decides(k, v)}
    return found


def line_of(model_type: str, config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """One row."""
    row: dict[str, Any] = {"model_type": model_type, "fields": fields_of(config_class)}
    aliases = {alias: name for alias, name in (config_class.attribute_map or {}).items() if decides(alias, None)}
    objects = objects_of(config_class)
    return row | ({"aliases": aliases} if aliases else {}) | ({"objects": objects} if objects else {})


def classes() -> dict[str, type[PreTrainedConfig]]:
    """Every config class by its model type, those of nested configs too."""
    found: dict[str, type[PreTrainedConfig]] = {name: CONFIG_MAPPING[name] for name in CONFIG_MAPPING}
    todo = list(found.values())
    while todo:
        config_class = todo.pop()
        nested = list((getattr(config_class, "sub_configs", None) or {}).values())
        nested += [spec.config_class for spec in (getattr(config_class, "sub_configs_defaults", None) or {}).values()]
        for inner in nested:
            model_type = getattr(inner, "model_type", "")
            if model_type and model_type not in found:
                found[model_type] = inner
                todo.append(inner)
    return found


def main() -> int:
    """Write all lines."""
    transformers.logging.set_verbosity_error()
    for model_type, config_class in sorted(classes().items()):
        sys.stdout.write(json.dumps(line_of(model_type, config_class), separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
