"""HARIVO's three losses beside the denoising loss, and how to see inside a UNet what they are made of."""

from .attention import temporal_attention_loss
from .contrastive import ContrastiveLoss, ContrastiveProjection, NegativeQueue, decoupled_contrastive_loss
from .mapping import mapping_regularisation
from .observe import Observed, SelfAttention, decoder_self_attentions, observed

__all__ = [
    "ContrastiveLoss",
    "ContrastiveProjection",
    "NegativeQueue",
    "Observed",
    "SelfAttention",
    "decoder_self_attentions",
    "decoupled_contrastive_loss",
    "mapping_regularisation",
    "observed",
    "temporal_attention_loss",
]
