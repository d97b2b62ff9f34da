"""Encoders of timm that are checked, one a family: the sizes that each is built at, and the settings that it needs."""

from __future__ import annotations

SIZES = (32, 48, 64, 96, 128)

FAMILIES: dict[str, tuple[tuple[int, ...], dict[str, int | str]]] = {
    "resnet26d": (SIZES, {}),
    "convnext_atto": (SIZES, {}),
    "vit_tiny_patch16_224": (SIZES, {}),
    "vit_small_patch14_reg4_dinov2": ((42, 56, 98), {}),
    "vit_small_patch16_dinov3": (SIZES, {}),
    "vit_base_patch16_siglip_224": (SIZES, {}),
    "deit_tiny_patch16_224": (SIZES, {}),
    "eva02_tiny_patch14_224": ((42, 56, 98), {}),
    "beit_base_patch16_224": (SIZES, {}),
    "swin_tiny_patch4_window7_224": (SIZES, {}),
    "swinv2_tiny_window8_256": (SIZES, {}),
    "efficientnet_b0": (SIZES, {}),
    "regnety_002": (SIZES, {}),
    "mobilenetv3_small_050": (SIZES, {}),
    "mixer_s32_224": ((32, 64, 96, 128), {}),
    "poolformer_s12": (SIZES, {}),
    "levit_128s": (SIZES, {}),
    "xcit_nano_12_p16_224": (SIZES, {}),
    "coatnet_nano_rw_224": ((64, 96, 128), {"input_size": 64}),
    "hiera_tiny_224": ((48, 96), {"input_size": 224}),
}
"""Name → sides of square views in pixels, and settings of ModelConfig."""
