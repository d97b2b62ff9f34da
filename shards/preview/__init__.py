"""Pictures of a set: sheets of its samples."""
