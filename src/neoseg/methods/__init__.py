"""Systems that are more, or less, than one network: threshold rules."""
