"""pretext-bench: rebuilds the result tables of self-supervised visual learning, measured."""

__version__ = "0.1.0"
