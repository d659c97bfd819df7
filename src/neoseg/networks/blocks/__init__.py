"""Parts that networks are made of, one subject a file."""
