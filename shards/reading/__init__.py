"""A split as arrays, its shards as they are needed."""
