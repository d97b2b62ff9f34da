"""Running recipes on shards: one job, all jobs of a table (`sweep`), every method side by side (`compare`), demos."""
