"""`python -m orchestration.cli`: the same as the command `continuum`."""

from orchestration.cli import main

main()
