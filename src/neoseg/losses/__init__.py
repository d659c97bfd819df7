"""Losses on logits: one a file, their weighted sum, and deep supervision over it."""
