"""Layer 6: peers and listeners, what ``dial`` and ``listen`` give."""
