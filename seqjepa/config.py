"""A run's configuration: every knob, validated at once. Recipes (TOML) and `--set a.b=c` are read in recipes/."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fidelity = Literal["paper", "author"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """What a sequence is made of."""

    context: int = Field(default=3, ge=1, le=64, description="M, context views per sequence; one more is the target")
    action: Literal["rotation", "rotation_colour"] = "rotation"
    normalisation: Literal["shards", "3diebench"] = "shards"
    image_size: int = Field(default=0, ge=0, le=4096, description="pixels a side the shards must have; 0: as they are")


class ModelConfig(Section):
    """Widths and variants of seq-JEPA (SPEC A.2–A.6, A.10)."""

    backbone: str = Field(default="resnet18", description="any torchvision ResNet")
    width: float = Field(default=1.0, gt=0, le=8, description="multiplies every channel count of the backbone")
    stem: Literal["standard", "cifar"] = "standard"
    condition: Literal["both", "aggregator", "predictor", "none"] = "both"
    action_dim: int = Field(default=128, ge=1)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    ff_mult: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    predictor_hidden: int = Field(default=1024, ge=1)


class OptimConfig(Section):
    """SPEC A.8. `schedule = "constant"` keeps lr after the warm-up, which is what the released code does (A.11 #2)."""

    optimizer: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(default=4e-4, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_epochs: float = Field(default=20, ge=0)
    warmup_lr: float = Field(default=1e-5, ge=0)
    final_lr: float = Field(default=1e-5, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    lr_update: Literal["step", "epoch"] = Field(default="step", description="how often the schedule is read")
    epochs: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=512, ge=2, description="global: over all ranks")
    ema_tau: float = Field(default=0.996, ge=0, lt=1)


class TrainConfig(Section):
    """How a run is executed; none of these changes what is learned beyond rounding."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast on CUDA, fp32 on CPU"
    )
    compile: bool = Field(default=False, description="torch.compile on CUDA; ignored on the CPU")
    channels_last: bool = True
    sync_bn: bool = Field(default=True, description="batch statistics over the global batch of several ranks")
    online_probes: bool = True
    checkpoint_minutes: float = Field(default=10.0, gt=0, description="and when interrupted, and at the end")


class RunConfig(Section):
    """One run. Saved as config.toml in the run directory."""

    name: str = "custom"
    method: str = "seq_jepa"
    fidelity: Fidelity = "paper"
    seed: int = Field(default=42, ge=0, lt=2**63)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
