"""Bake: what a loader makes on the fly, written once as a `views` set that any code base can train on.

A sample of the baked set holds E sequences of T views of its image, with their parameters; the e-th is what the loader
makes of the image in epoch e. So ViewLoader on the baked set gives the batches of SaccadeLoader or AugmentedLoader on
the source, of the same seed, for E epochs, and then starts over.

baking.py  Baking: how many sequences, of what, from which seed, stored how
ways.py    the two ways in which images become sequences, patches at fixations and augmentations, behind one interface
run.py     bake(): shard by shard, resumable
"""
