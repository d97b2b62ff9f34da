"""3DIE-Synth: a procedural stand-in for 3DIEBench with its latents and its on-disk layout. Map: README.md.

Importing this package does not import torch; rendering does.
"""

from pipelines.synth.config import SynthConfig
from pipelines.synth.objects import SynthObject, iter_objects
from pipelines.synth.write import synth_shards, synth_tree

__all__ = ["SynthConfig", "SynthObject", "iter_objects", "synth_shards", "synth_tree"]
