"""Processes, their launch, and the sharding of arrays over devices."""
