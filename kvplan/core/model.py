"""A model as a list of layers: what each one mixes tokens with, and which weight tensors it holds.

Everything downstream (cache, weights, sharding, attention memory) is a sum over this list, so a new
architecture is new layers and nothing else. Equal layers are stored once; `layer_order` says where they stand.
To add an attention kind: a class in `core.mixers`, its cache in `core.cache`, the lengths of its calls in
`core.attention.PassShape` (or, where it has no scores, its step in `core.overhead`), and, where ranks share it in a
new way, `core.layout.tp_accepted`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Literal

from kvplan.core.dtypes import DType
from kvplan.core.mixers import CrossAttention, FullAttention, Mixer
from kvplan.core.stored import StoredFormat
from kvplan.core.units import ceil_div

Part = Literal["embeddings", "attention", "mlp", "experts", "router", "norms", "head", "vision", "audio"]
EagerSoftmax = Literal["fp32", "model-dtype", "sinks", "masked-copy", "alibi"]
PARTS: tuple[Part, ...] = (
    "embeddings",
    "attention",
    "mlp",
    "experts",
    "router",
    "norms",
    "head",
    "vision",
    "audio",
)


@dataclass(frozen=True, slots=True)
class Split:
    """How tensor parallelism cuts a tensor: `axis` is dealt out in `units` that cannot be cut (heads, rows)."""

    axis: int
    units: int

    def units_per_rank(self, tp: int) -> int:
        """⌈units / tp⌉ on the fullest rank, and at least one: KV heads are replicated past their number."""
        return max(1, ceil_div(self.units, tp))


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One parameter tensor, or `copies` equal ones (experts), of which a token uses `active_copies`."""

    name: str
    shape: tuple[int, ...]
    part: Part
    split: Split | None = None
    copies: int = 1
    active_copies: int | None = None
    linear: bool = False
    """A matrix of a linear layer: what quantisation schemes replace."""
    buffer: bool = False
    """A tensor that the checkpoint stores but that is no parameter: counted in bytes, not in parameters."""
    fixed_bits: int | None = None
    """Bits per element whatever the model's dtype, for what frameworks keep in fp32."""
    stored: StoredFormat | None = None
    """How a quantised checkpoint stores this matrix; None = plainly."""
    idle: bool = False
    """transformers' class makes it and computes nothing with it: no checkpoint has it, and no other engine."""

    @property
    def num_elements(self) -> int:
        """Elements of one copy."""
        return prod(self.shape)

    @property
    def num_parameters(self) -> int:
        """Elements of all copies; none of a buffer."""
        return 0 if self.buffer else self.copies * self.num_elements

    @property
    def active_parameters(self) -> int:
        """Elements that one token passes through; none of a buffer."""
        copies = self.copies if self.active_copies is None else self.active_copies
        return 0 if self.buffer else copies * self.num_elements

    def rank_shape(self, tp: int) -> tuple[int, ...]:
        """The shape that the fullest of `tp` ranks holds."""
        if self.split is None or tp == 1:
            return self.shape
        axis, units = self.split.axis, self.split.units
        size = self.shape[axis] // units * self.split.units_per_rank(tp)
        return (*self.shape[:axis], size, *self.shape[axis + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: its token mixers, its weights, and how wide its feed-forward part gets."""

    mixers: tuple[Mixer, ...]
    weights: tuple[Weight, ...]
    mlp_activations: int = 0
    """Elements that the feed-forward part holds per token at its widest, before tensor parallelism."""
    eager_softmax: EagerSoftmax = "fp32"
    """How the reference implementation's eager attention computes its softmax (see `core.attention`)."""

    @property
    def in_encoder(self) -> bool:
        """Whether the layer runs over the encoder's tokens."""
        return any(isinstance(mixer, FullAttention) and not mixer.cached for mixer in self.mixers)

    @property
    def skipped_without_images(self) -> bool:
        """Whether a request without images passes the layer by.

        Source: transformers 5.23, models/mllama/modeling_mllama.py `MllamaTextModel.forward`
        """
        return any(isinstance(mixer, CrossAttention) and mixer.over == "images" for mixer in self.mixers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Layers for multi-token prediction: the checkpoint stores them beside the model, and only drafting loads them.

    They are part of no figure of the model. An engine that drafts with them keeps a cache for each of their mixers.
    """

    layers: tuple[Layer, ...]
    """In order, each with what joins a token to the state before it, and with copies of tables where it has them."""
    shared: tuple[Weight, ...] = ()
    """What all of them share."""
    first_layer: int | None = None
    """The number that the checkpoint gives the first of them after its own layers; None where it names them apart."""

    @property
    def num_layers(self) -> int:
        """Layers that are stored."""
        return len(self.layers)

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """The mixers of all layers, in order: what drafting keeps a cache of."""
        return tuple(mixer for layer in self.layers for mixer in layer.mixers)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Everything that is stored."""
        return (*self.shared, *(weight for layer in self.layers for weight in layer.weights))


SET_BY_USER = "--set"
"""The origin of a fact that the user gave."""
DEFAULTS_FROM = "class default (transformers 5.23)"
"""The origin of a fact that the config leaves to its class."""
WORKED_OUT = "worked out by the class (transformers 5.23)"
"""The origin of a fact that the class makes of others, where the config is silent."""
OWN_DEFAULT = "default of the model's own class"
"""The same, of a class that comes with the model's repository."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact that the reader took, and where from: a file, a class default, the user."""

    key: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the model's facts come from."""

    kind: Literal["catalog", "hub", "directory", "config", "params", "gguf"]
    location: str
    revision: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """That weights are quantised, and by whom: a checkpoint, whose weights each say how, or a plan.

    `understood` False means that kvplan counts the weights as if unquantised, an upper bound, and says so.
    """

    method: str
    understood: bool
    bits: int = 0
    """Bits of the narrowest elements."""
    planned: StoredFormat | None = None
    """What a plan stores its linear layers in; None = as each weight says."""
    exact: bool = True
    """Whether the scheme's tensors are known to the byte."""
    kv_cache: str | None = None
    """The format of the KV cache that the checkpoint was calibrated for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """What stands beside a model that is not understood: `least` is the smallest that its config allows.

    The model itself is then the largest, since counting too little is the dangerous side.
    """

    least: "ModelSpec"
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ModelSpec:
    """The architecture's facts; nothing of the raw config survives past here."""

    id: str
    model_type: str
    source: Source
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    """The distinct layers."""
    layer_order: tuple[int, ...]
    """For each layer of the model, in order, its index in `layers`."""
    embeddings: tuple[Weight, ...]
    """What the first pipeline stage holds before its layers: tables, positions, a vision tower."""
    head: tuple[Weight, ...]
    """What the last pipeline stage holds after its layers: final norm, output head."""
    tied_embeddings: bool = False
    """The output head is the token table: counted once, held again by the last of several stages."""
    dtype: DType | None = None
    """As the checkpoint states it; None where it does not."""
    max_seq_len: int | None = None
    encoder_seq_len: int | None = None
    """Tokens that the encoder makes of any input, where the architecture fixes their number (Whisper: 1500)."""
    max_encoder_seq_len: int | None = None
    """Positions of the encoder, where they are others than `max_seq_len`."""
    tokens_per_image: int | None = None
    """Tokens that one image adds to cross-attention over images, where that is known."""
    quantization: Quantization | None = None
    stored_weight_bytes: int | None = None
    """What the repository's safetensors files hold, where that was read."""
    architecture: str | None = None
    """The class that was counted, e.g. `LlamaForCausalLM`."""
    facts: tuple[Fact, ...] = ()
    draft: Draft | None = None
    """What the checkpoint stores beside the model for multi-token prediction, as far as its config says."""
    doubt: str | None = None
    """Why the parameters may not be those of the checkpoint to the last one, and by how much; None where they are."""
    assumed: Assumption | None = None
    """Where the architecture is not understood and the user asked for bounds."""

    def __repr__(self) -> str:
        return f"ModelSpec({self.id!r}, model_type={self.model_type!r}, num_layers={self.num_layers})"

    @property
    def num_layers(self) -> int:
        """All layers, an encoder's included."""
        return len(self.layer_order)

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder's length is a question of its own; a vision tower counts where layers attend to it."""
        return any(isinstance(mixer, CrossAttention) for layer in self.layers for mixer in layer.mixers)

    @property
    def crosses_images(self) -> bool:
        """Whether what cross-attention looks at comes with the request's images, and so may be nothing."""
        return any(layer.skipped_without_images for layer in self.layers)

    @property
    def first_decoder_layer(self) -> int:
        """Where an encoder-decoder's decoder begins; the number of layers where there is no such seam."""
        crossing = {i for i, layer in enumerate(self.layers) if _crosses_to_encoder(layer)}
        if crossing:
            return next(position for position, i in enumerate(self.layer_order) if i in crossing)
        return self.num_layers

    @property
    def generates(self) -> bool:
        """Whether tokens are generated one by one: some layer keeps a cache."""
        return not all(layer.in_encoder for layer in self.layers)

    @property
    def has_experts(self) -> bool:
        """Whether any layer has routed experts."""
        return any(weight.part == "experts" for layer in self.layers for weight in layer.weights)

    @property
    def has_vocabulary_head(self) -> bool:
        """Whether the class ends in logits over the vocabulary: a tied table, or a head of that size."""
        return self.tied_embeddings or any(self.vocab_size in weight.shape for weight in self.head)

    def layer_counts(self, start: int = 0, stop: int | None = None) -> list[tuple[Layer, int]]:
        """The distinct layers of the slice `start:stop`, each with its count."""
        order = self.layer_order[start:stop]
        return [(layer, n) for i, layer in enumerate(self.layers) if (n := order.count(i))]


def _crosses_to_encoder(layer: Layer) -> bool:
    return any(isinstance(mixer, CrossAttention) and mixer.over == "encoder" for mixer in layer.mixers)


def stack(layers: Iterable[Layer]) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
    """(distinct layers, order) of a list of layers: what `ModelSpec` stores."""
    distinct: dict[Layer, int] = {}
    by_identity: dict[int, int] = {}
    order = []
    for layer in layers:
        # Hashing a layer walks all its weights; the same object need not be hashed again.
        index = by_identity.get(id(layer))
        if index is None:
            index = distinct.setdefault(layer, len(distinct))
            by_identity[id(layer)] = index
        order.append(index)
    return tuple(distinct), tuple(order)
