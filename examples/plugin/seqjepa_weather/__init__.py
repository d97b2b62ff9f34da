"""A package of one's own for seqjepa: its pyproject.toml names what is in networks.py, source.py and logbook.py."""
