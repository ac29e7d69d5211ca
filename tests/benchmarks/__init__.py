"""What `continuum bench` runs: one module per bench, each with `run(quick, progress) -> {"measured", "setup"}`.

Belongs here: measuring. Does not belong here: assertions about time (tests never make them).
"""
