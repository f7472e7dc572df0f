"""Layer 5: what users hold: channels, their two halves, codecs."""
