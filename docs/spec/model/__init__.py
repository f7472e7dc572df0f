"""Explicit-state model of streams, offers and select; docs/spec/model.md says what is modelled and why it is sound."""
