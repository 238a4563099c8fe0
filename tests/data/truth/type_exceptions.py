"""The model types of transformers for which kvplan's answer is none, or not equal: each by name, with its reason."""

NOT_READ: dict[str, str] = {}
"""Types that exit 3."""
PARAMETERS: dict[str, str] = {}
"""Types whose parameters differ from the class's."""
CACHE: dict[str, str] = {}
"""Types whose cache differs from what the class keeps after a prefill."""
