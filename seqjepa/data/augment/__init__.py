"""Parametrised augmentations in batches, on the device: what was drawn is what is applied and what is recorded.

recipes.py     Pipeline (one view's augmentation), Recipe (observation and target pipelines), RECIPES
parameters.py  AugmentParams: everything a view's augmentation is made of, drawn per (seed, epoch, sample, view)
resample.py    random resized crop and flip: antialiased bicubic, a matrix per sample and axis
colour.py      brightness, contrast, saturation, hue, grayscale, solarise with a factor per sample
blur.py        Gaussian blur with a sigma per sample
apply.py       augment(): images and AugmentParams → views
scaling.py     actions between views: differences of z-scored (or author-normalised) parameters
"""
