"""Models with recurrent or convolving layers, alone or beside attention."""
