"""Layers, convolutions per platform, and initializers."""
