"""Files: written atomically, mirrored from object storage, checkpoints."""
