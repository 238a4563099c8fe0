"""BART and the encoder-decoders that are BART but for norms, positions or token tables.

Source: transformers 5.23, models/{bart,mbart,plbart,mvp,blenderbot,blenderbot_small,pegasus,marian,m2m_100,fsmt}/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import Reading, column, replicated, table
from kvplan.sources.families.seq2seq.sides import Style, Tables, read_two_sides, shared_table

PRE_NORM = Style(embedding_norm=False, final_norm=True)


def read_bart(facts: Facts) -> Reading:
    """BART: learnt positions, of which the first two rows stand for padding; norms after each part.

    Source: transformers 5.23, models/bart/modeling_bart.py
    """
    return read_two_sides(facts, Style(labels=3))


def read_mbart(facts: Facts) -> Reading:
    """mBART: norms before each part, and one more after the last layer.

    Source: transformers 5.23, models/mbart/modeling_mbart.py
    """
    return read_two_sides(facts, Style(final_norm=True))


def read_plbart(facts: Facts) -> Reading:
    """PLBART: BART for programs.

    Source: transformers 5.23, models/plbart/modeling_plbart.py
    """
    return read_two_sides(facts, Style())


def read_mvp(facts: Facts) -> Reading:
    """MVP: BART, in whose decoder `use_prompt` puts learnt keys and values, which no cache holds.

    Source: transformers 5.23, models/mvp/modeling_mvp.py `MvpModel`, which asks its decoder alone for prompts
    """
    reading = read_two_sides(facts, Style())
    if not facts.flag("use_prompt") or not reading.layers[0].in_encoder:
        return reading
    hidden, length, middle = reading.hidden_size, facts.positive("prompt_length"), facts.positive("prompt_mid_dim")
    width = facts.positive("decoder_layers") * 2 * hidden
    prompts: list[Weight] = []
    for prefix in ("decoder.self_attn_prompt", "decoder.cross_attn_prompt"):
        prompts += table(f"{prefix}.prompt_embedding", length, hidden, split=False)
        prompts += replicated(f"{prefix}.prompt_trans.0", middle, hidden, "attention", bias=True)
        prompts += replicated(f"{prefix}.prompt_trans.2", width, middle, "attention", bias=True)
    return replace(reading, embeddings=(*reading.embeddings, *prompts))


def read_blenderbot(facts: Facts) -> Reading:
    """Blenderbot: norms before each part, learnt positions.

    Source: transformers 5.23, models/blenderbot/modeling_blenderbot.py
    """
    return read_two_sides(facts, replace(PRE_NORM, extra_positions=0))


def read_blenderbot_small(facts: Facts) -> Reading:
    """Blenderbot of 90M: BART without rows for padding.

    Source: transformers 5.23, models/blenderbot_small/modeling_blenderbot_small.py
    """
    return read_two_sides(facts, Style(family="blenderbotsmall", extra_positions=0))


def read_pegasus(facts: Facts) -> Reading:
    """Pegasus: norms before each part, sines that are stored as a table.

    Source: transformers 5.23, models/pegasus/modeling_pegasus.py
    """
    return read_two_sides(facts, replace(PRE_NORM, extra_positions=0))


def read_marian(facts: Facts) -> Reading:
    """Marian (OPUS-MT): sines that are stored as a table, norms after each part, and two vocabularies where it says so.

    Source: transformers 5.23, models/marian/modeling_marian.py
    """
    style = Style(language_model="MTModel", embedding_norm=False, extra_positions=0)
    shared = facts.flag("share_encoder_decoder_embeddings")
    return read_two_sides(facts, style, tables=shared_table if shared else _two_vocabularies)


def _two_vocabularies(facts: Facts, hidden: int, *, stands_alone: bool, tied: bool) -> Tables:
    """A table for each side; the head looks up the decoder's."""
    vocab = facts.positive("vocab_size")
    target = facts.positive("decoder_vocab_size", default=vocab)
    source = () if stands_alone else table("encoder.embed_tokens", vocab, hidden)
    return Tables(weights=(*table("decoder.embed_tokens", target, hidden), *source), vocab=target)


def read_m2m_100(facts: Facts) -> Reading:
    """M2M-100 and NLLB: norms before each part, positions that are computed.

    Source: transformers 5.23, models/m2m_100/modeling_m2m_100.py
    """
    return read_two_sides(facts, replace(PRE_NORM, stored_positions=False, logits_bias=False))


def read_fsmt(facts: Facts) -> Reading:
    """FSMT (fairseq's WMT19): Marian's layers, a vocabulary on each side, a head inside the decoder.

    Source: transformers 5.23, models/fsmt/modeling_fsmt.py
    """
    padding = facts.integer("pad_token_id", default=1)
    style = Style(embedding_norm=False, extra_positions=padding + 1, logits_bias=False)
    reading = read_two_sides(facts, style, tables=_source_and_target)
    tied = facts.flag("tie_word_embeddings")
    head = () if tied else column("decoder.output_projection", reading.vocab_size, reading.hidden_size, "head")
    return replace(reading, head=head, tied_embeddings=tied)


def _source_and_target(facts: Facts, hidden: int, *, stands_alone: bool, tied: bool) -> Tables:
    source, target = facts.positive("src_vocab_size"), facts.positive("tgt_vocab_size")
    if tied and source != target:
        raise facts.wrong("tie_word_embeddings", tied, f"false, where the vocabularies are of {source} and {target}")
    encoding = () if tied else table("encoder.embed_tokens", source, hidden)
    return Tables(weights=(*table("decoder.embed_tokens", target, hidden), *encoding), vocab=target)
