"""Patterns-Synth: twenty shapes in five patterns, in CIFAR-100's own format. Map: ../../README.md.

The hundred fine classes are pairs of shape and pattern, the twenty coarse ones are the shapes. Both survive crops,
flips, blur and other colours, which is what training on augmented views has to find out.
"""
