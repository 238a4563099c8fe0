"""The model types of transformers for which kvplan's answer is none, or not equal: each by name, with its reason."""

NOT_READ: dict[str, str] = {
    "fast_vlm": "its tower is one of timm's, whose shape no config states",
    "musicgen_melody": "its decoder makes codes of sound, no text, after a text encoder and a melody",
    "perception_lm": "its tower is one of timm's, whose shape no config states",
    "reformer": "its cache is made of buckets of hashes and states of whole chunks",
}
"""Types that exit 3."""
PARAMETERS: dict[str, str] = {
    "mt5": "with `tie_word_embeddings` false, checkpoints hold an output head that the bare class ties; it is counted",
}
"""Types whose parameters differ from the class's, in some configuration."""
CACHE: dict[str, str] = {}
"""Types whose cache differs from what the class keeps after a prefill."""
