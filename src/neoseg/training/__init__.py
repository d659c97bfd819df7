"""Training one fold: a loop that can be read from top to bottom, and the parts that it calls."""
