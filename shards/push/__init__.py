"""Finished sets sent to the hub and to stores."""
