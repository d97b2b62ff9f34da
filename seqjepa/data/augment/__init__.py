"""Parametrised augmentations in batches, on the device: what was drawn is what is applied and what is recorded.

recipes.py     Pipeline (one view's augmentation), Recipe (observation and target pipelines), RECIPES
parameters.py  AugmentParams: everything a view's augmentation is made of, drawn per (seed, epoch, sample, view);
               actions between views: differences of z-scored (or author-normalised) parameters
apply.py       augment(): images and AugmentParams → views; fused, for a compiler, on a GPU
stored_views.py  the same of stored views, beside what their actions say
resize.py      random resized crops: antialiased bicubic
colour.py      brightness, contrast, saturation, hue, grayscale, solarise and Gaussian blur, a factor for each sample
"""
