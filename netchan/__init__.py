"""netchan: Go channels for Python over any wire."""

__version__ = "0.1.0.dev0"
