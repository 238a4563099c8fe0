"""GGUF files, llama.cpp's format: their header read within bounds (`header`), in the words of a config.json (`config`)."""
