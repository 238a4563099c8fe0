"""Decoders in DeepSeek's line: latent attention, indexers, compressed entries."""
