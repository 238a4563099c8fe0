"""SeamlessM4T, versions 1 and 2: text and speech in, text and speech out, by one decoder of text.

Source: transformers 5.23, models/{seamless_m4t,seamless_m4t_v2}/.
"""

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import Reading, class_suffix, column, norm, table, unknown_class
from kvplan.sources.families.seq2seq.sides import decoder_layers, encoder_layers, read_side
from kvplan.sources.families.towers.seamless import STYLE, speaker, speech_encoder

_CLASSES = {
    "ForTextToText": ("text",),
    "ForSpeechToText": ("speech",),
    "ForTextToSpeech": ("text", "speaks"),
    "ForSpeechToSpeech": ("speech", "speaks"),
    "Model": ("text", "speech", "speaks"),
}
"""Of each class, what it has beside the decoder of text."""


def read_seamless_m4t(facts: Facts) -> Reading:
    """SeamlessM4T: the class says what it reads and whether it speaks; unstated, it is text to text.

    Source: transformers 5.23, models/seamless_m4t/modeling_seamless_m4t.py
    """
    return _read(facts, second=False)


def read_seamless_m4t_v2(facts: Facts) -> Reading:
    """SeamlessM4T v2: speech is seen in chunks, units come all at once.

    Source: transformers 5.23, models/seamless_m4t_v2/modeling_seamless_m4t_v2.py
    """
    return _read(facts, second=True)


def _read(facts: Facts, *, second: bool) -> Reading:
    """The text decoder attends to what text or speech was encoded to; the Conformer is counted as weights.

    `encoder_seq_len` counts tokens of text, or what the adapter leaves of speech: of eight frames one.
    """
    suffix = class_suffix(facts) or "ForTextToText"
    if suffix not in _CLASSES:
        raise unknown_class(facts)
    has = _CLASSES[suffix]
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    tied = facts.flag("tie_word_embeddings")
    layers: list[Layer] = []
    tables = ["shared"]
    if not tied:
        tables += ["text_encoder.embed_tokens"] * ("text" in has) + ["text_decoder.embed_tokens"]
    embeddings: list[Weight] = [weight for name in tables for weight in table(name, vocab, hidden)]
    norms = norm("text_decoder.layer_norm", hidden, bias=True)
    if "text" in has:
        layers += encoder_layers(facts, read_side(facts, hidden, "encoder"), STYLE)
        norms = (*norm("text_encoder.layer_norm", hidden, bias=True), *norms)
    if "speech" in has:
        embeddings += speech_encoder(facts, hidden, second=second)
    if "speaks" in has:
        embeddings += speaker(facts, hidden, second=second)
    layers += decoder_layers(facts, read_side(facts, hidden, "decoder"), STYLE)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=tuple(embeddings),
        head=(*norms, *(() if tied else column("lm_head", vocab, hidden, "head"))),
        tied_embeddings=tied,
        max_seq_len=facts.positive("max_position_embeddings"),
    )
