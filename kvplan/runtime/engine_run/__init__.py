"""Starting an installed engine, reading what it says until it has sized its pool, and ending all of it."""
