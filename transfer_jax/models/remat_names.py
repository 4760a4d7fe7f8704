"""The names of the policies of rematerialization, for configs, which import no JAX."""

from typing import Literal

Remat = Literal["none", "dots", "block", "offload"]
"""The name of a policy; see `ComputeConfig.remat`."""
