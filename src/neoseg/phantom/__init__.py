"""Procedural newborn heads with tissue values and HIE-like lesions of known truth."""
