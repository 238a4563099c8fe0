"""GGUF files, llama.cpp's format: the header, read within bounds, and what it says in the words of a config.json."""
