"""Who builds a set, and what they write."""
