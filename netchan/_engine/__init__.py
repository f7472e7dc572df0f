"""Layer 2: the compiled engine; the only code that owns file descriptors and threads."""
