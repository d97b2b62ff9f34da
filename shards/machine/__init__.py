"""The machine: its faults, files that are whole or not there, locks, standard streams."""
