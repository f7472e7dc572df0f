"""Layer 3: connection management (identity, handshake, dial, listen, manager)."""
