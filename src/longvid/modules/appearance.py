"""AppearancePreservationModule (APM): what the first frame hands to the whole video (StreamingT2V)."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import silu

from .unet import VideoUNet


class ContextMixer(nn.Module):
    r"""Mix image tokens into the text of one layer, behind a gate.

    .. math:: c_l = c_{text} + \mathrm{SiLU}(\alpha_l)\,
        \mathrm{LN}_l(\mathrm{Conv}_l([c_{text}, c_{image}])), \qquad \alpha_l = 0 \text{ at first}

    The tokens are the channels of the convolution, which slides along the features.

    Args:
        num_text_tokens, num_image_tokens: Tokens in and, of the text, out.
        dim: Width of a token.

    Source: StreamingT2V (arXiv:2403.14773), Sec. 4.2, Eq. 6; one convolution and one normalisation per layer as in the
        released code, where the paper can be read as sharing them.
    """

    def __init__(self, num_text_tokens: int, num_image_tokens: int, dim: int):
        super().__init__()
        self.conv = nn.Conv1d(num_text_tokens + num_image_tokens, num_text_tokens, 3, padding=1)
        self.norm = nn.LayerNorm(dim)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, text: Tensor, tokens: Tensor) -> Tensor:
        """(B, num_text_tokens, D), (B, num_text_tokens + num_image_tokens, D) -> (B, num_text_tokens, D)."""
        return text + silu(self.alpha) * self.norm(self.conv(tokens))


class AppearancePreservationModule(ModelMixin, ConfigMixin):
    r"""Turn the text into one context per text layer of a `VideoUNet`, each with a share of an anchor frame.

    .. math:: c_{image} = \mathrm{view}_{M \times D}(\mathrm{MLP}(e_{CLIP})), \qquad
        c_l = c_{text} + \mathrm{SiLU}(\alpha_l)\, \mathrm{LN}_l(\mathrm{Conv}_l([c_{text}, c_{image}]))

    The contexts depend on the prompt and the anchor only, so they serve all steps of all chunks, and any attention
    processor can read them. Freshly built, every gate is closed and every context is the text, bit for bit. Without
    an anchor (classifier-free guidance), pass the embedding of the blank image, zeros in [-1, 1]: mid-grey.

    Args:
        num_layers: Text layers L of the UNet, `VideoUNet.num_text_layers`.
        cross_attention_dim: Width D of the text.
        image_embed_dim: Width E of the image embedding.
        inner_dim: Width of the hidden layer.
        num_text_tokens: Tokens N of the text, fixed.
        num_image_tokens: Tokens M of the image.

    Source: StreamingT2V (arXiv:2403.14773), Sec. 4.2, Eq. 6.
    """

    @register_to_config
    def __init__(
        self,
        num_layers: int = 16,
        cross_attention_dim: int = 1024,
        image_embed_dim: int = 1024,
        inner_dim: int = 1280,
        num_text_tokens: int = 77,
        num_image_tokens: int = 16,
    ):
        super().__init__()
        self.image_tokens = nn.Sequential(
            nn.Linear(image_embed_dim, inner_dim),
            nn.SiLU(),
            nn.Linear(inner_dim, num_image_tokens * cross_attention_dim),
        )
        self.mixers = nn.ModuleList(
            ContextMixer(num_text_tokens, num_image_tokens, cross_attention_dim) for _ in range(num_layers)
        )

    @classmethod
    def from_unet(cls, unet: VideoUNet, **new: Any) -> Self:
        """Build the module for a UNet, on its device and in its dtype.

        Args:
            new: Arguments of this class other than `num_layers` and `cross_attention_dim`.
        """
        dim = unet.config["cross_attention_dim"]
        model = cast(Self, cls(num_layers=unet.num_text_layers, cross_attention_dim=dim, **new))
        nn.Module.to(model, device=unet.device, dtype=unet.dtype)  # diffusers' own `to` warns of a cast
        return model.train(unet.training)

    @property
    def is_open(self) -> bool:
        """Whether any gate lets the anchor through; freshly built, none does."""
        return any(bool(cast(ContextMixer, mixer).alpha != 0) for mixer in self.mixers)

    def encode_anchor(self, image_embeds: Tensor) -> Tensor:
        """Image tokens of the anchor; several anchor frames are averaged.

        Shapes:
            (B, E) or (B, A, E) of A frames -> (B, M, D).

        Raises:
            ValueError: if the shape is another.
        """
        width = self.config["image_embed_dim"]
        if image_embeds.ndim not in (2, 3) or image_embeds.shape[-1] != width:
            raise ValueError(f"image_embeds must be (B, {width}) or (B, A, {width}); got {tuple(image_embeds.shape)}")
        if image_embeds.ndim == 3:
            image_embeds = image_embeds.mean(dim=1)
        tokens = self.image_tokens(image_embeds)
        return rearrange(tokens, "b (n d) -> b n d", n=self.config["num_image_tokens"])

    def forward(self, text: Tensor, image_embeds: Tensor) -> tuple[Tensor, ...]:
        """Compute the contexts of all text layers, for `VideoUNet.forward(encoder_hidden_states=...)`.

        Args:
            text: Text embedding, per sample or per frame.
            image_embeds: CLIP embedding of the anchor, projected but not normalised.

        Shapes:
            text (B, N, D) or (B, F, N, D), image_embeds (B, E) or (B, A, E) -> L tensors of the shape of `text`.

        Raises:
            ValueError: if the shapes do not fit the module or each other.
        """
        num_tokens, dim = self.config["num_text_tokens"], self.config["cross_attention_dim"]
        if text.ndim not in (3, 4) or text.shape[-2:] != (num_tokens, dim):
            raise ValueError(
                f"text must be (B, {num_tokens}, {dim}) or (B, F, {num_tokens}, {dim}); got {tuple(text.shape)}"
            )
        image_tokens = self.encode_anchor(image_embeds)
        if image_tokens.shape[0] != text.shape[0]:
            raise ValueError(f"expected as many images as texts, {text.shape[0]}; got {image_tokens.shape[0]}")
        if text.ndim == 4:
            image_tokens = repeat(image_tokens, "b n d -> (b f) n d", f=text.shape[1])
        flat = text.reshape(-1, num_tokens, dim)
        tokens = torch.cat([flat, image_tokens], dim=1)
        return tuple(mixer(flat, tokens).reshape(text.shape) for mixer in self.mixers)
