"""Dense decoders with latent attention: MiniCPM3 and Youtu.

Source: transformers 5.23, models/{minicpm3,youtu}/.
"""

from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.latent import latent_attention, latent_mixer, read_latent
from kvplan.sources.families.bricks.mixers import require_divisor
from kvplan.sources.families.bricks.parts import Reading, gated_mlp
from kvplan.sources.families.decoders.llama import decoder, decoder_layers


def read_minicpm3(facts: Facts) -> Reading:
    """MiniCPM3: values are hidden / heads wide where the config does not say; its MLPs can have biases.

    Source: transformers 5.23, models/minicpm3/modeling_minicpm3.py
    """
    hidden, num_heads = facts.positive("hidden_size"), facts.positive("num_attention_heads")
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    return _read(facts, value=hidden // num_heads, mlp_bias=facts.flag("mlp_bias"))


def read_youtu(facts: Facts) -> Reading:
    """Youtu: DeepSeek V3's attention with a dense MLP in every layer.

    Source: transformers 5.23, models/youtu/modeling_youtu.py
    """
    return _read(facts)


def _read(facts: Facts, *, value: int | None = None, mlp_bias: bool = False) -> Reading:
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_latent(facts, value=value)
    attention = latent_attention(heads, hidden, bias=facts.flag("attention_bias"))
    mixers = [latent_mixer(heads)] * facts.layer_count("num_hidden_layers")
    mlp = gated_mlp(hidden, width, bias=mlp_bias)
    return decoder(facts, decoder_layers([*mixers], attention, mlp, hidden, width), hidden)
