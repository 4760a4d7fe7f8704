"""Sources that are read from where they are: folders in object storage, and shards there or on a disk.

Each has an index (`transfer_jax.data.index`), and reads the examples of a batch by ranges of bytes.
"""
