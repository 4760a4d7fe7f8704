"""One training step and one phase: loss, optimizer, state, compiled programs."""
