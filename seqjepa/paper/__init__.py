"""Everything that is true of the paper alone: its data sets, published numbers, metrics, tables and recipes."""
