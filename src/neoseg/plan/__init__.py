"""From the facts of a data set and a budget to a Plan; every number with its reason."""
