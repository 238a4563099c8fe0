"""Models whose classes come with their repositories, not with transformers."""
