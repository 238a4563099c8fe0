"""Encoder-decoders, of text and of sound."""
