"""Models in BERT's line: encoders, embeddings, rerankers, and the decoders that they can be."""
