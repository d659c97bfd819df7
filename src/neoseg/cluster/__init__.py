"""Where work runs: in this process or in local worker processes."""
