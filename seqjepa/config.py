"""What a run and an evaluation are configured by: every knob, validated at once.

Recipes (TOML) and `--set a.b=c` are read in recipes/.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from seqjepa.data.actions import DECLARED, OF_THE_SHARDS, PRESETS, action_name
from seqjepa.data.augment.recipes import RECIPES
from shards.errors import FormatError
from shards.schema import ActionSpec

Fidelity = Literal["paper", "author"]


def _checked_action(value: object) -> str | ActionSpec:
    """A preset's name, "shards", or terms as in `[[data.action]]`: by their name where they are a preset's."""
    names = (*PRESETS, OF_THE_SHARDS)
    if isinstance(value, str) and value in names:
        return value
    if not isinstance(value, list | tuple | ActionSpec):
        allowed = ", ".join(map(repr, names))
        raise PydanticCustomError("action", "should be {allowed} or a list of terms", {"allowed": allowed})
    try:
        spec = value if isinstance(value, ActionSpec) else ActionSpec.from_json(value)
    except FormatError as error:
        raise PydanticCustomError("action", "is no list of terms: {error}", {"error": str(error)}) from None
    return spec if (name := action_name(spec)) == DECLARED else name


Action = Annotated[
    str | ActionSpec,
    PlainValidator(_checked_action),
    PlainSerializer(lambda action: action.to_json() if isinstance(action, ActionSpec) else action),
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """What a sequence is made of: stored views, patches at fixations (patch > 0), or augmented images (augment)."""

    context: int = Field(default=3, ge=1, le=64, description="M, context views per sequence; one more is the target")
    order: Literal["random", "window"] = Field(
        default="random", description="of stored views: any of a sample's, or consecutive steps of an ordered sequence"
    )
    stride: int = Field(default=1, ge=1, le=100_000, description="steps from a view to the next, in a window")
    set: Literal["", "3diebench", "cifar100", "tiny-imagenet", "stl10"] = Field(
        default="", description="the paper's, that the recipe is for; what shards hold is told by their classes"
    )
    split: str = Field(
        default="", description='to train on; "": "unlabeled" where the set has it (STL-10), else "train"'
    )
    fraction: float = Field(
        default=1.0, gt=0, le=1, description="of the training split's samples; which ones is up to the seed"
    )
    shuffle_window: int = Field(
        default=0,
        ge=0,
        description="shards among which samples are shuffled; 0: all, or as many as half of the cache holds where that "
        "is smaller than the set: docs/remote.md",
    )
    action: Action = Field(
        default="rotation",
        description='what takes a view to the next: a preset, "shards" (as the set has it) or terms; docs/training.md',
    )
    normalisation: Literal[
        "shards", "encoder", "3diebench", "stl10", "imagenet", "cifar100", "tiny-imagenet", "cifar100-paper",
        "tiny-imagenet-paper",
    ] = Field(
        default="shards", description="of pixels; a set's own, published ones, or a timm encoder's; docs/training.md"
    )  # fmt: skip
    image_size: int = Field(default=0, ge=0, le=4096, description="pixels a side the shards must have; 0: as they are")
    patch: int = Field(default=0, ge=0, le=4096, description="pixels a side of the patch at a fixation; 0: whole views")
    inhibition: Literal["disc", "square", "none"] = Field(default="disc", description="of return, radius patch / 2")
    fixations: Literal["saliency", "uniform"] = Field(default="saliency", description="what they are drawn from")
    fill: Literal["black", "mean"] = Field(default="black", description="of a patch that reaches beyond its image")
    augment: str = Field(
        default="none",
        description="a recipe of data/augment/recipes.py: sequences of whole images, or beside stored views' actions",
    )


class ModelConfig(Section):
    """Widths and variants of the networks (paper §3.2, §A.2, §A.3, §B.2); docs/methods.md has each method's own."""

    backbone: str = Field(
        default="resnet18", description='any torchvision ResNet, or "timm:NAME", any encoder of timm; docs/encoders.md'
    )
    width: float = Field(default=1.0, gt=0, le=8, description="multiplies every channel count of a torchvision ResNet")
    stem: Literal["standard", "cifar"] = "standard"
    pool: str = Field(
        default="", description='what features of a timm encoder are: "avg", "token" (class token) …; "": timm\'s own'
    )
    patch_size: int = Field(default=0, ge=0, le=256, description="pixels a side, of timm's ViTs; 0: as they are named")
    input_size: int = Field(
        default=0, ge=0, le=4096, description="pixels a side that a timm encoder resizes views to; 0: as they come"
    )
    view_size: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(strict=False)] = Field(
        default=(), description="height and width that a timm encoder is built for; none: the shards', noted in the run"
    )
    pretrained: str = Field(
        default="",
        description='weights that the backbone begins with: a file (.safetensors, .pth), or "timm", which downloads '
        'timm\'s own; "": random',
    )
    freeze: bool = Field(default=False, description="the backbone: in eval mode, not trained, its own target")
    condition: Literal["both", "aggregator", "predictor", "none"] = "both"
    action_dim: int = Field(default=128, ge=1, le=65_536)
    layers: int = Field(default=3, ge=1, le=256)
    heads: int = Field(default=4, ge=1, le=1024)
    ff_mult: int = Field(default=4, ge=1, le=256)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    action_calls: int = Field(
        default=0, ge=0, le=2, description="of seq-JEPA's action embedding in a training step; 0: by fidelity (1, 2)"
    )
    predictor_hidden: int = Field(default=0, ge=0, le=1_000_000, description="0: the method's own, by fidelity")
    projector: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(strict=False, max_length=100)] = (
        Field(default=(), description="widths of the projector's layers; none: the method's own, by fidelity")
    )
    projector_kind: Literal["mlp", "transformer"] = Field(
        default="mlp", description='transformer: layers, heads, ff_mult and dropout as above (the paper\'s "+" models)'
    )


class ContextSSLConfig(Section):
    """ContextSSL alone (paper §A.3); its transformer takes layers, heads and ff_mult from the model."""

    width: int = Field(default=2048, ge=1, le=1_000_000, description="of the transformer")
    pairs: int = Field(default=64, ge=1, le=4096, description="of views in a context sequence")
    mask: float = Field(default=0.9, ge=0, lt=1, description="probability that a token does not see an earlier pair")
    temperature: float = Field(default=0.1, gt=0)
    regression: float = Field(default=5.0, ge=0, description="weight of the regression of absolute parameters")


class OptimConfig(Section):
    """Paper §A.2. `schedule = "constant"` keeps lr after the warm-up, as released (docs/fidelity.md #2)."""

    optimizer: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(default=4e-4, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_epochs: float = Field(default=20, ge=0)
    warmup_lr: float = Field(default=1e-5, ge=0)
    final_lr: float = Field(default=1e-5, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    lr_update: Literal["step", "epoch"] = Field(default="step", description="how often the schedule is read")
    epochs: int = Field(default=1000, ge=1)
    schedule_epochs: int = Field(
        default=0,
        ge=0,
        description="that the cosines of lr and τ are planned for, where training ends earlier; 0: epochs",
    )
    batch_size: int = Field(default=512, ge=2, description="of an optimizer step, over all ranks")
    accumulate: int = Field(default=1, ge=1, description="micro-batches that a batch is split into, to save memory")
    clip_norm: float = Field(default=0.0, ge=0, description="largest norm of all gradients together; 0: no clipping")
    ema_tau: float = Field(default=0.996, ge=0, lt=1)
    ema_update: Literal["auto", "step", "epoch"] = Field(
        default="auto", description="how often τ is read; auto: by fidelity, every step, or once an epoch as released"
    )

    @property
    def planned_epochs(self) -> int:
        """E, the length of the schedules."""
        return self.schedule_epochs or self.epochs


class TrainConfig(Section):
    """How a run is executed; none of these changes what is learned beyond rounding."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast on CUDA, fp32 on CPU"
    )
    compile: bool = Field(default=True, description="torch.compile on CUDA, where it can; ignored on the CPU")
    channels_last: bool = True
    resident: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="whether the split is decoded once and kept in memory, on the GPU if there is one; auto: images "
        "where they fit, stored views where they fit on a GPU",
    )
    pin_memory: bool = Field(default=True, description="page-lock what is copied to a GPU; ignored on the CPU")
    sync_bn: bool = Field(default=True, description="batch statistics over the global batch of several ranks")
    online_probes: bool = True
    checkpoint_minutes: float = Field(default=10.0, gt=0, description="and when interrupted, and at the end")
    keep_epochs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, max_length=100)] = Field(
        default=(), description="after which the weights are kept, for `seqjepa evaluate --checkpoints`; at most 100"
    )
    timeout_minutes: float = Field(
        default=30.0, gt=0, le=10_000, description="that ranks wait for one that says nothing; then all end"
    )
    monitor_epochs: int = Field(
        default=10, ge=0, description="k-NN and RankMe of up to 1,024 samples every so many epochs; 0: never"
    )
    loggers: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="beside metrics.jsonl: tensorboard, wandb, trackio, mlflow, csv; docs/watching.md"
    )
    picture_epochs: int = Field(default=10, ge=0, description="pictures for loggers every so many epochs; 0: none")


class RunConfig(Section):
    """One run. Saved as config.toml in the run directory."""

    name: str = Field(
        default="custom",
        pattern=r"^[^/\\.\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$",
        description="of the run's folder below runs/",
    )
    method: str = "seq_jepa"
    fidelity: Fidelity = "paper"
    seed: int = Field(default=42, ge=0, lt=2**63)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    context_ssl: ContextSSLConfig = ContextSSLConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    options: dict[str, JsonValue] = Field(default={}, description="of a method that another package adds: its own")

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        if mistakes := list(contradictions(self)):
            raise ValueError("; ".join(mistakes))
        return self

    def with_values(self, section: Literal["data", "model", "optim"], **values: object) -> RunConfig:
        """The same with other values in a section, which are not checked."""
        return self.model_copy(update={section: getattr(self, section).model_copy(update=values)})


def contradictions(config: RunConfig) -> Iterator[str]:
    """What is wrong between settings that are each allowed. Whether shards fit them is seen when those are opened."""
    data, optim = config.data, config.optim
    if optim.planned_epochs < optim.epochs:
        yield (
            f"optim.schedule_epochs = {optim.schedule_epochs} is less than optim.epochs = {optim.epochs}; schedules "
            "last as long as training, or longer"
        )
    patches, augmented = f"data.patch = {data.patch}", f"data.augment = {data.augment!r}"
    if data.patch and data.augment != "none":
        yield f'{patches} and {augmented} exclude each other; set data.patch=0 or data.augment="none"'
    elif data.patch and data.action not in ("position", "none"):
        yield f"patches at fixations ({patches}) need data.action = 'position', not {action_name(data.action)!r}"
    if data.order == "window" and data.patch:
        yield "data.order = 'window' is for stored views, not for patches; set data.order=random"
    if data.stride > 1 and data.order != "window":
        yield f"data.stride = {data.stride} needs data.order = 'window': views in random order have no stride"
    if data.augment not in RECIPES:
        yield f"{augmented} is not a recipe for augmentations; there are: {', '.join(RECIPES)}"
    if 0 < data.image_size < data.patch:
        yield f"{patches} is larger than the images: data.image_size = {data.image_size}"


PAPER_PROBE_EPOCHS = 300
PAPER_LINEAR_REGRESSOR_EPOCHS = 50
LEAST_PROBE_STEPS = 2000
"""Of heads on declared actions by default; below it any table says that they learned little (docs/own-data.md)."""
CPU_AGG_DRAWS = 16
LONGEST_PATH = 7


def _ascending(sizes: object) -> object:
    return tuple(sorted(set(sizes))) if isinstance(sizes, list | tuple | range | set) else sizes


Sizes = BeforeValidator(_ascending)


class EvalOptions(Section):
    """Of EvalConfig what a scale of runs may say too (experiments/scale.py)."""

    suite: str = "probes"
    m_val: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1), Sizes] = tuple(range(1, 9))
    probe_epochs: int | None = Field(default=None, ge=1, le=1_000_000)
    agg_draws: int | None = Field(default=None, ge=1)
    train_draws: int | None = Field(default=None, ge=1)
    val_draws: int = Field(default=1, ge=1, le=1000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    train_split: str | None = None
    val_split: str | None = None
    normalisation: str | None = None
    path: bool | None = None
    contexts: Annotated[tuple[Annotated[int, Field(ge=0, le=8190)], ...] | None, Sizes] = None
    unpooled: bool = False


class EvalConfig(EvalOptions):
    """How a run is evaluated (docs/evaluation.md). None: decided by the device and by what there is.

    untrained     the run's initial weights instead of its trained ones
    m_val         context sizes for z_AGG; those larger than a sample has views are left out, and said to be
    probe_epochs  None: the paper's 300, and 50 for linear regressors; else n, and n/6 for linear regressors. Where
                  actions are declared all probes have n; None: 300, or as many as make 2,000 steps
    agg_draws     training draws of stored views for z_AGG, cycled over epochs. None: a new draw every epoch on a GPU,
                  16 on a CPU, where running the aggregator every epoch would take longer than all else together
    train_draws   training draws of fixations or augmentations of an image, cycled over epochs. None: one for each
                  epoch, or as many as fit, on a GPU; 8 on a CPU
    val_draws     fixed draws under which each validation sample is seen; scores are over all of them
    train_split, val_split  None: "train", and "val" or else "test"
    patch         pixels a side of the patches, to evaluate with others than in training (transfer, Figure 15); of runs
                  on augmented images with saliency maps: of those that position R² is read from (default 32)
    normalisation "run", "shards" or a name in DataConfig. None: the run's own constants, on images of another size or
                  with another patch "imagenet" for that set and "shards" for others
    path          path integration. None: as the suite has it; else for positions (linear heads), and for rotations
                  (MLPs) on a GPU only
    contexts      numbers of tokens before a view, for ContextSSL: even. None: as many as there is room for (126 of a
                  sequence of 64 pairs), on a GPU also none
    suite         "probes", "3diebench", "stl10", "augmentations" or "all": which studies go with the probes
    ood           shards of the same objects' kind with rotations that training never saw (paper §B.3)
    standardise   linear regressors see standardised features and begin at the mean of their targets. Not what the
                  paper says (§A.2): nearer to the linear function that fits best than its 50 epochs get
    unpooled      rotations are read from the feature map before pooling too, beside the paper's numbers
    """

    untrained: bool = False
    device: str = "auto"
    patch: int | None = Field(default=None, ge=1)
    ood: Annotated[Path | None, Field(strict=False)] = None
    standardise: bool = False

    @property
    def epochs(self) -> int:
        """Epochs of classifiers and MLPs."""
        return self.probe_epochs or PAPER_PROBE_EPOCHS

    @property
    def linear_regressor_epochs(self) -> int:
        """Epochs of linear regressors, in the paper's proportion to the others' (50 to 300)."""
        return max(1, round(self.epochs * PAPER_LINEAR_REGRESSOR_EPOCHS / PAPER_PROBE_EPOCHS))

    @property
    def path_sizes(self) -> tuple[int, ...]:
        """The sizes of m_val for which paths are integrated: up to 7, as in Figure 6."""
        return tuple(m for m in self.m_val if m <= LONGEST_PATH)

    @property
    def views(self) -> int:
        """The longest sequence that a probe needs: M_val views, M + 1 for paths, 2 for pairs."""
        return max(2, *self.m_val, *(m + 1 for m in self.path_sizes))

    @property
    def augmented_views(self) -> int:
        """The views of a draw of augmentations: M_val of the observation pipeline, and one of the target pipeline."""
        return max(self.m_val) + 1

    @property
    def aggregate_draws(self) -> int:
        """Training draws of what costs a forward pass of the aggregator."""
        return self.agg_draws or self.epochs

    def with_steps(self, rows: int, batch: int) -> EvalConfig:
        """Of own data: unless epochs were given, as many as make 2,000 steps of batches, and no fewer than 300."""
        epochs = self.probe_epochs or max(PAPER_PROBE_EPOCHS, enough_probe_epochs(rows, batch))
        return self.model_copy(update={"probe_epochs": epochs})

    def for_device(self, on_gpu: bool) -> EvalConfig:
        """With the draws that None leaves to the device."""
        return self if on_gpu or self.agg_draws else self.model_copy(update={"agg_draws": CPU_AGG_DRAWS})


def enough_probe_epochs(rows: int, batch: int) -> int:
    """The fewest epochs of `rows` ≥ 1 samples that make 2,000 steps of batches."""
    return ceil(LEAST_PROBE_STEPS / ceil(rows / batch))
