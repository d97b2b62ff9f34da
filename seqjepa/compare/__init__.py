"""`seqjepa compare`: every method on the same shards with the same encoder, steps and probes, and one table."""
