"""`seqjepa embed`: features of shards or of a folder of images, in a file.

request.py   what is asked for, checked; as a Slurm array
inputs.py    which views or images there are, and their pixels in batches; which views make a z_AGG
parts.py     what is embedded so far, on disk: so that a killed command goes on
formats.py   .parquet, .npz and .npy
run.py       embed_run: one after the other
feature_sets.py  `seqjepa-data features`: a shard set of what a frozen encoder makes of every view
"""
