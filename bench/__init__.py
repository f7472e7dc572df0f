"""Benchmarks of netchan; see bench/README.md for how to run and read them."""
