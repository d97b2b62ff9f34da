"""ContextSSL: a contrastive loss whose invariances follow from a context of pairs and their actions (paper §A.3).

Shape letters: B pairs of views, P pairs in a sequence, L = 2P tokens, D features, A action size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqjepa.config import ContextSSLConfig, RunConfig
from seqjepa.data.actions import action_name, as_spec
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import nt_xent
from seqjepa.methods.base import Method, StepOutput, detached, fold
from seqjepa.methods.context_ssl.transformer import ContextTransformer, Memory, pair_mask, random_mask
from seqjepa.models.backbone import build_backbone, fill_last_norms
from seqjepa.models.distributed import all_rows, of_rank_zero
from seqjepa.precision import at_least_float32, full_precision
from shards.errors import ConfigError
from shards.schema import THREE_DIEBENCH_PARAMS

ENVIRONMENTS = {"rotation": slice(0, 4), "colour": slice(4, 6)}
"""Which part of an action is told in each; the rest is zero."""
PARAMS = tuple(param.name for param in THREE_DIEBENCH_PARAMS)
"""A view's parameters: 3DIEBench's latents, in their order (facebookresearch/SIE@54541cf data/README.md:58-67)."""
HUES = (3, 6)
TERMS = (("relative_rotation", 4), ("difference", 2))
"""Operations and sizes of the terms of actions that it can be told: both, or the first alone."""
LEAST_COSINE = 1e-7
DEEP = 1024


class ContextSSL(Method):
    """Encoder, transformer over pairs of views, and a regressor of absolute parameters.

    action_size  6: relative quaternion, two hue differences; each step is in the environment `rotation` or `colour`,
                 with probability ½. 4: the quaternion alone, always `rotation`
    fidelity     "author": residual branches do not begin at zero (a plain torchvision ResNet)

    Of `model` the transformer takes layers, heads and ff_mult; it has no dropout. ConfigError: heads that do not
    divide the width; see build_backbone.
    """

    display_name = "ContextSSL"
    uses_actions = True
    params_needed = PARAMS
    settings = (
        "model.layers",
        "model.heads",
        "model.ff_mult",
        *(f"context_ssl.{key}" for key in ContextSSLConfig.model_fields),
    )

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        terms = tuple((term.op, term.size) for term in as_spec(config.data.action).terms)
        if terms not in (TERMS, TERMS[:1]):
            raise ConfigError(
                f"context_ssl is told rotations and hues, not data.action = {action_name(config.data.action)!r}; "
                "set data.action=rotation_colour"
            )
        model, settings = config.model, config.context_ssl
        if settings.width % model.heads:
            raise ConfigError(
                f"context_ssl.width = {settings.width} is not a multiple of model.heads = {model.heads}; change one"
            )
        self.context, self.action_size, self.pairs = settings, action_size, settings.pairs
        self.environments = {name: part for name, part in ENVIRONMENTS.items() if part.stop <= action_size}
        self.encoder, self.features = build_backbone(model)
        if config.fidelity == "author":
            fill_last_norms(self.encoder, 1.0)
        sizes = (settings.width, model.layers, model.heads, model.ff_mult)
        self.transformer = ContextTransformer(self.features, action_size, *sizes)
        self.regressor = nn.Sequential(
            *(nn.Linear(self.features, DEEP), nn.ReLU(), nn.Linear(DEEP, DEEP), nn.ReLU()),
            nn.Linear(DEEP, action_size),
        )

    def step(self, seq: ViewSequence) -> StepOutput:
        """NT-Xent of the pairs' representations, plus the weighted regression of the second view's parameters.

        views [B, 2, C, H, W], actions [B, 1, A], params [B, 2, 7] as PARAMS (without columns: no regression). Both
        views go through the encoder in one batch. features: "z" [B, 2, D], detached. In eval mode nothing is drawn: the
        environment is `rotation` and no pairs are masked.
        """
        z = self.embed(fold(seq.views)).unflatten(0, (-1, 2))
        told, allowed = self._draw(seq.actions.device)
        y = self.represent(z, seq.actions[:, 0] * told, allowed)
        first, second = all_rows(y[:, 0], y[:, 1])
        loss = nt_xent(first, second, self.context.temperature, least=LEAST_COSINE)
        logs = {"contrast": loss.detach()}
        if seq.params.shape[-1]:
            missed = self._regression_loss(y, seq.params[:, 1], told)
            loss = loss + self.context.regression * missed
            logs["regression"] = missed.detach()
        return StepOutput(loss, logs, features={"z": detached(z)})

    def represent(self, z: Tensor, actions: Tensor, allowed: Tensor) -> Tensor:
        """Pairs z [B, 2, D] with actions [B, A], in sequences of P one after the other → representations [B, 2, D].

        allowed: bool [N, 2P, 2P]. Where P does not divide B the last sequence is shorter: it is filled up with zeros,
        which come last and so are seen by nobody.
        """
        B, P = len(z), min(self.context.pairs, len(z))
        pairs = F.pad(self.tokens(z, actions), (0, 0, 0, 0, 0, -B % P))
        sequences = pairs.flatten(0, 1).unflatten(0, (-1, 2 * P))
        y = self.transformer(sequences, allowed[:, : 2 * P, : 2 * P])
        return at_least_float32(y).flatten(0, 1).unflatten(0, (-1, 2))[:B]

    def tokens(self, z: Tensor, actions: Tensor) -> Tensor:
        """[z₁ ; action] and [z₂ ; 0] of each pair: z [B, 2, D], actions [B, A] → [B, 2, D + A] in float32 or wider."""
        told = torch.stack((actions, torch.zeros_like(actions)), dim=1)
        return torch.cat((at_least_float32(z), told), dim=-1)

    def remember(self, z: Tensor, actions: Tensor) -> Memory:
        """A context of pairs z [K, 2, D] and actions [K, A], K ≥ 0, to look at views in. Meant for eval mode."""
        return self.transformer.remember(self.tokens(z, actions).flatten(0, 1))

    def in_context(self, z: Tensor, memory: Memory) -> Tensor:
        """z⁺ [n, D] of single views z [n, D] after a context: each as one more token, without action."""
        return self.transformer.recall(F.pad(z, (0, self.action_size)), memory)

    def _draw(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """What a step tells of an action, 0 or 1 for each value [A], and its masks bool [N, L, L].

        Drawn on the device, from the generator that the trainer seeds before every step; rank 0's draw for all ranks.
        """
        layers, L = len(self.transformer.blocks), 2 * self.context.pairs
        # Rows of 0 and 1, made on the device as well: whoever chooses among them on the host waits for the draw.
        place = torch.arange(self.action_size, device=device)
        told = [((place >= part.start) & (place < part.stop)).float() for part in self.environments.values()]
        if not self.training:
            return told[0], pair_mask(L, device).expand(layers, -1, -1)
        numbers = of_rank_zero(torch.rand(1 + layers * L * (L // 2), device=device))
        environment = (numbers[:1] * len(self.environments)).long()
        masks = random_mask(numbers[1:].view(layers, L, L // 2), self.context.mask)
        return torch.stack(told).index_select(0, environment)[0], masks

    def _regression_loss(self, y: Tensor, params: Tensor, told: Tensor) -> Tensor:
        """Mean squared error of what both tokens of a pair say about the second view, over the part that was told."""
        if params.shape[-1] != len(PARAMS):
            raise ConfigError(f"context_ssl needs views with the parameters {', '.join(PARAMS)}")
        with full_precision(y.device):
            said = self.regressor(F.normalize(y, dim=-1))
            truth = absolute_parameters(params)[:, None, : self.action_size]
            return ((said - truth).square() * told).sum() / (said.shape[0] * said.shape[1] * told.sum())


def absolute_parameters(params: Tensor) -> Tensor:
    """params [B, 7] as PARAMS → [B, 6]: quaternion (x, y, z, w) of the rotation, floor and light hue."""
    half = 0.5 * params[:, :3]
    (sx, sy, sz), (cx, cy, cz) = half.sin().unbind(1), half.cos().unbind(1)
    x, y = sx * cy * cz - cx * sy * sz, cx * sy * cz + sx * cy * sz
    z, w = cx * cy * sz - sx * sy * cz, cx * cy * cz + sx * sy * sz
    return torch.stack((x, y, z, w, *(params[:, hue] for hue in HUES)), dim=1)
