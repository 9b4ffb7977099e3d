"""AnchoredUNet: an image UNet that also sees two reference frames, an anchor frame and their noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Self, cast

from diffusers import T2IAdapter, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from .anchor_block import ANCHOR_INJECTIONS, install_anchor, patch_tokens, sincos_positions
from .attention import install_lean_attention
from .level_embedding import LEVEL_EMBEDDINGS
from .signature import extends_arguments_of

ANCHOR_POSITIONS = ("none", "sincos")


class AnchoredUNet(UNet2DConditionModel):
    r"""An image UNet conditioned on reference frames, an anchor frame and the noise level of both (ART-V).

    * **References**: a T2I-Adapter reads the concatenated reference latents; its features are added after each down
      block.
    * **Anchor**: the anchor latent, cut into small patches, is the cross-attention context of one more transformer
      block behind every transformer of the UNet.
    * **Noise level**: an embedding of the level is added to the time embedding.

    The keys of the stock UNet are untouched, so `load_state_dict(stock, strict=False)` misses new keys only. Freshly
    built, anchor and level leave the stock output bit-identical; so does the adapter when no references are passed,
    or always with `adapter_zero_init`. ART-V's two networks, dynamic noise and mask, are both one of these.

    Args:
        args, kwargs: The arguments of `diffusers.UNet2DConditionModel`; its class embedding must be unused.
        reference_channels: Channels of the concatenated references; None means two latents, `2 * in_channels`.
        adapter_res_blocks: Residual blocks per level of the adapter.
        adapter_zero_init: Start the adapter at zero features instead of T2I-Adapter's random ones.
        anchor_injection: "block" (a whole transformer block), "cross_attn" (one cross-attention) or "none" (an
            anchor has no effect).
        anchor_patch: Side of an anchor patch in latent pixels.
        anchor_pos: "none" or "sincos", a fixed position code added to the anchor tokens.
        anchor_zero_init: Start the anchor blocks as the identity.
        level_embedding: "table" (a row per level), "mlp" (an own time-embedding network) or "shared" (the UNet's
            time embedding and a gate).
        num_levels: Number of noise levels; levels are in [0, num_levels).
        level_zero_init: Start the level embedding at zero.
        mask_bias_init: If given, fills the bias of the last convolution. For a mask network, whose output is a
            logit, -3 starts masks near 0.05 and so protects the noise network.

    Raises:
        ValueError: for an unknown option, or a UNet layout that the new parts cannot join.

    Source: ART-V (arXiv:2311.18834), Sec. 3 and Tables 2-3. There is no public code: what the paper leaves open is
        reconstructed from its parameter counts.
    """

    _no_split_modules = ["TextBlock", "AnchorBlock", "ResnetBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]
    _repeated_blocks = ["TextBlock", "AnchorBlock"]

    @register_to_config
    @extends_arguments_of(UNet2DConditionModel)
    def __init__(
        self,
        *args,
        reference_channels: int | None = None,
        adapter_res_blocks: int = 2,
        adapter_zero_init: bool = False,
        anchor_injection: str = "block",
        anchor_patch: int = 2,
        anchor_pos: str = "none",
        anchor_zero_init: bool = True,
        level_embedding: str = "table",
        num_levels: int = 1000,
        level_zero_init: bool = True,
        mask_bias_init: float | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        _check_layout(self.config)
        in_channels, widths = self.conv_in.in_channels, list(self.config["block_out_channels"])
        reference_channels = 2 * in_channels if reference_channels is None else reference_channels
        self.register_to_config(reference_channels=reference_channels)

        self.adapter = T2IAdapter(reference_channels, widths, adapter_res_blocks, downscale_factor=1)
        if adapter_zero_init:
            _zero_adapter(self.adapter)

        token_dim = in_channels * anchor_patch**2
        if anchor_pos == "sincos" and token_dim % 4:
            raise ValueError(f"anchor_pos='sincos' needs tokens of a width divisible by 4; got {token_dim}")
        for transformer in [m for m in self.modules() if isinstance(m, Transformer2DModel)]:
            install_anchor(transformer, anchor_injection, token_dim, zero_init=anchor_zero_init)
        install_lean_attention(self)

        time_embed_dim = self.time_embedding.linear_2.out_features
        sinusoid_dim = self.time_embedding.linear_1.in_features
        self.class_embedding = LEVEL_EMBEDDINGS[level_embedding](num_levels, sinusoid_dim, time_embed_dim)
        if level_zero_init:
            self.class_embedding.zero_init()

        if mask_bias_init is not None:
            nn.init.constant_(self.conv_out.bias, mask_bias_init)  # type: ignore[arg-type]

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, **new: Any) -> Self:
        """Grow an image UNet: its weights copied, every new part at the identity, on its device and in its dtype.

        Args:
            new: New arguments of this class. `adapter_zero_init` is True here unless given.

        Raises:
            ValueError: if the UNet has weights that do not belong to a plain image UNet.
        """
        model = cast(Self, cls.from_config(unet.config, **{"adapter_zero_init": True, **new}))
        unexpected = model.load_state_dict(unet.state_dict(), strict=False).unexpected_keys
        if unexpected:
            raise ValueError(f"the UNet has weights that AnchoredUNet has not: {', '.join(unexpected[:5])}")
        nn.Module.to(model, device=unet.device, dtype=unet.dtype)  # diffusers' own `to` warns of a cast
        return model.train(unet.training)

    @apply_forward_hook
    def encode_references(self, references: Tensor) -> list[Tensor]:
        """Features of the references, one per down block; they depend on neither time nor text, so they can be kept.

        Blank references, zeros, have features of their own: they are not the same as no references.

        Shapes:
            (B, reference_channels, H, W) -> [(B, C_i, ceil(H / 2**i), ceil(W / 2**i))].

        Raises:
            ValueError: if the number of channels is wrong.
        """
        expected = self.config["reference_channels"]
        if references.ndim != 4 or references.shape[1] != expected:
            raise ValueError(
                f"references must be (B, {expected}, H, W), the latents of all references concatenated along the"
                f" channels; got {tuple(references.shape)}"
            )
        return self.adapter(references)

    def encode_anchor(self, anchor: Tensor) -> Tensor | None:
        """Tokens of the anchor latent; None where this network has no anchor part.

        Shapes:
            (B, C, H, W) -> (B, ceil(H / patch) * ceil(W / patch), C * patch**2).

        Raises:
            ValueError: if the number of channels is wrong.
        """
        if anchor.ndim != 4 or anchor.shape[1] != self.conv_in.in_channels:
            raise ValueError(f"anchor must be (B, {self.conv_in.in_channels}, H, W); got {tuple(anchor.shape)}")
        if self.config["anchor_injection"] == "none":
            return None
        patch = self.config["anchor_patch"]
        tokens = patch_tokens(anchor, patch)
        if self.config["anchor_pos"] == "sincos":
            rows, columns = -(-anchor.shape[-2] // patch), -(-anchor.shape[-1] // patch)
            tokens = tokens + sincos_positions(rows, columns, tokens.shape[-1], like=tokens)
        return tokens

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        *,
        references: Tensor | None = None,
        reference_features: Sequence[Tensor] | None = None,
        anchor: Tensor | None = None,
        anchor_tokens: Tensor | None = None,
        noise_level: Tensor | None = None,
        return_dict: bool = True,
        **unet_options: Any,
    ) -> UNet2DConditionOutput | tuple[Tensor, ...]:
        """Run the network. With none of the five new inputs it computes the stock UNet.

        Args:
            references, anchor: Latents, encoded here; or else
            reference_features, anchor_tokens: what `encode_references` and `encode_anchor` made of them.
            noise_level: Level at which references and anchor are corrupted, integers.
            unet_options: Further arguments of the stock forward, such as `cross_attention_kwargs`.

        Shapes:
            sample (B, C, H, W), timestep () or (B,), encoder_hidden_states (B, N, D), references
            (B, reference_channels, H, W), anchor (B, C, H, W), noise_level (B,) -> (B, out_channels, H, W).

        Raises:
            ValueError: if a condition is passed twice, raw and encoded, or has a wrong shape.
        """
        if references is not None:
            if reference_features is not None:
                raise ValueError("pass references or reference_features, not both")
            reference_features = self.encode_references(references)
        if anchor is not None:
            if anchor_tokens is not None:
                raise ValueError("pass anchor or anchor_tokens, not both")
            anchor_tokens = self.encode_anchor(anchor)
        if reference_features is not None:
            if len(reference_features) != len(self.down_blocks):
                raise ValueError(f"expected {len(self.down_blocks)} reference features; got {len(reference_features)}")
            reference_features = list(reference_features)  # the stock forward empties the list it is given
        return super().forward(
            sample,
            timestep,
            (encoder_hidden_states, anchor_tokens),  # type: ignore[arg-type]
            class_labels=noise_level,
            down_intrablock_additional_residuals=reference_features,  # type: ignore[arg-type]
            return_dict=return_dict,
            **unet_options,
        )

    # The stock forward hands the contexts (text, anchor tokens) through these three.

    def get_class_embed(self, sample: Tensor, class_labels: Tensor | None) -> Tensor | None:
        """Embedding of the noise level, or None without one."""
        if class_labels is None:
            return None
        sinusoid = partial(self.get_time_embed, sample)
        return self.class_embedding(class_labels, sinusoid, self.time_embedding).to(sample.dtype)

    def get_aug_embed(self, emb, encoder_hidden_states, added_cond_kwargs) -> Any:
        """Additional embeddings of the stock UNet, from the text."""
        return super().get_aug_embed(emb, encoder_hidden_states[0], added_cond_kwargs)

    def process_encoder_hidden_states(self, encoder_hidden_states, added_cond_kwargs) -> Any:
        """Project the text as the stock UNet does (an IP-Adapter adds its image tokens here); keep the anchor."""
        text, anchor_tokens = encoder_hidden_states
        return super().process_encoder_hidden_states(text, added_cond_kwargs), anchor_tokens

    def _convert_ip_adapter_attn_to_diffusers(self, state_dicts, **options) -> dict[str, Any]:
        """IP-Adapter weights number the stock attentions; show them those, and leave the anchor's as they are."""
        anchor_classes = tuple(c for c in ANCHOR_INJECTIONS.values() if c is not None)
        prefixes = tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, anchor_classes))
        anchored = {k: v for k, v in self.attn_processors.items() if k.startswith(prefixes)}
        stock = {k: v for k, v in self.attn_processors.items() if k not in anchored}
        view = SimpleNamespace(attn_processors=stock, config=self.config)
        return UNet2DConditionModel._convert_ip_adapter_attn_to_diffusers(view, state_dicts, **options) | anchored  # type: ignore[arg-type]


def _zero_adapter(adapter: T2IAdapter) -> None:
    """Make every feature zero, and every layer reachable by a gradient: zero the residual outputs and the entrance."""
    for name, module in adapter.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.endswith(("conv_in", "block2")):
                nn.init.zeros_(module.weight)
            if not name.endswith("block1"):
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _check_layout(config: Any) -> None:
    """Reject, by name, options that do not exist and UNet layouts that the new parts cannot join."""
    options = {
        "anchor_injection": ANCHOR_INJECTIONS,
        "anchor_pos": ANCHOR_POSITIONS,
        "level_embedding": LEVEL_EMBEDDINGS,
    }
    for name, allowed in options.items():
        if config[name] not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {config[name]!r}")
    if config["anchor_patch"] < 1:
        raise ValueError(f"anchor_patch must be at least 1; got {config['anchor_patch']}")
    if config["class_embed_type"] is not None or config["num_class_embeds"] is not None:
        raise ValueError(
            "AnchoredUNet uses the class embedding for the noise level (level_embedding, num_levels); the UNet must"
            f" not have one: got class_embed_type={config['class_embed_type']!r},"
            f" num_class_embeds={config['num_class_embeds']!r}"
        )
    if config["dual_cross_attention"]:
        raise ValueError("AnchoredUNet needs plain transformers; got dual_cross_attention=True")
    *inner, last = config["down_block_types"]
    fits = all(kind == "CrossAttnDownBlock2D" for kind in inner)
    fits &= last in ("CrossAttnDownBlock2D", "DownBlock2D")
    fits &= config["mid_block_type"] in ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None)
    fits &= all(kind in ("CrossAttnUpBlock2D", "UpBlock2D") for kind in config["up_block_types"])
    if not fits:
        raise ValueError(
            "AnchoredUNet takes CrossAttnDownBlock2D (the last may be DownBlock2D), UNetMidBlock2DCrossAttn or"
            " UNetMidBlock2D, CrossAttnUpBlock2D and UpBlock2D, as in Stable Diffusion; got"
            f" {config['down_block_types']}, {config['mid_block_type']}, {config['up_block_types']}"
        )
