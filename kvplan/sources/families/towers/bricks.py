"""Bricks of towers: weights that see or hear, in one part, each name under the tower's own."""

from dataclasses import replace

from kvplan.core.model import Part, Weight


def loose(name: str, *shape: int, part: Part = "vision") -> Weight:
    """One tensor that is no linear layer's: an embedding, a convolution, a learnt query."""
    return Weight(name=name, shape=shape, part=part)


def in_tower(prefix: str, weights: tuple[Weight, ...], *, part: Part = "vision", copies: int = 1) -> tuple[Weight, ...]:
    """The weights as the tower's own, in its part: once for each of `copies` equal layers."""
    if not copies:
        return ()
    return tuple(replace(w, name=f"{prefix}.{w.name}", part=part, copies=copies * w.copies) for w in weights)
