"""Decoders that attend to every token or to a window, dense and with routed experts."""
