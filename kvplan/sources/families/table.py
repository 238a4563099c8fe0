"""Every model type that kvplan reads, and its reader: the whole support list in one look.

To add a family: a function `Facts -> Reading` in a file of its lineage, its line here, and a catalog file or a
row of `tests/data/truth` that holds it to the framework's own figures.
"""

from collections.abc import Callable

from kvplan.sources.facts import Facts
from kvplan.sources.families import llama
from kvplan.sources.families.parts import Reading

Reader = Callable[[Facts], Reading]

READERS: dict[str, Reader] = {
    "llama": llama.read_llama,
    "mistral": llama.read_mistral,
    "mixtral": llama.read_mixtral,
    "phi3": llama.read_phi3,
    "qwen2": llama.read_qwen2,
    "qwen3": llama.read_qwen3,
}
