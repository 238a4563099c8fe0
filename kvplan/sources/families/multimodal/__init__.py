"""Models that see or hear: a language model, and towers beside it."""
