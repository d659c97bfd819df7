"""The stages of a run, one a file: check, plan, prepare, train, predict, evaluate, report."""
