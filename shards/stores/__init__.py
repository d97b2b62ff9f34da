"""Sets at an address: read, written and cached."""
