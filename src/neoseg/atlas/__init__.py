"""Building an atlas from a healthy group."""
