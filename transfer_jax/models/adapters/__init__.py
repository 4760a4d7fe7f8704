"""Adapters: small arrays added to a network, with rules that change its weights or its forward pass."""
