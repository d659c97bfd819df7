"""Summaries with intervals, figures and the self-contained HTML report; plain data in, files out, no torch."""
