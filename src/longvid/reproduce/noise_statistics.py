"""The test of Jarque and Bera in closed form, and the correlated noises that it is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEVEL = 0.05
"""p above it: the sample passes as Gaussian."""
KINDS = ("independent", "mixed", "progressive", "shared")


def jarque_bera(samples: Tensor) -> tuple[Tensor, Tensor]:
    r"""The statistic of Jarque and Bera and its p-value, for samples along the last axis.

    With the central moments :math:`m_k = \operatorname{mean}(x - \bar x)^k` of n values,

    .. math:: J = \frac n 6 \Big( S^2 + \frac{K^2}{4} \Big), \qquad S = m_3 / m_2^{3/2}, \qquad K = m_4 / m_2^2 - 3,
        \qquad p = e^{-J / 2}

    J is :math:`\chi^2` with two degrees of freedom for many independent Gaussian values, whose tail is the exponential.

    Shapes:
        samples (..., n) -> (...), (...), float64.

    Raises:
        ValueError: for samples of fewer than 2 values.

    Source: Jarque and Bera, Economics Letters 6 (3), 1980, which HARIVO's Table A1 uses.
    """
    if not samples.ndim or samples.shape[-1] < 2:
        raise ValueError(f"expected samples (..., n) with n of at least 2; got shape {tuple(samples.shape)}")
    centred = samples.double() - samples.double().mean(-1, keepdim=True)
    second, third, fourth = (centred.pow(power).mean(-1) for power in (2, 3, 4))
    skewness, excess = third / second.pow(1.5), fourth / second.square() - 3
    statistic = samples.shape[-1] / 6 * (skewness.square() + excess.square() / 4)
    return statistic, (-statistic / 2).exp()


def frame_noise(kind: str, shape: Sequence[int], generator: torch.Generator, *, alpha: float = 0.0) -> Tensor:
    r"""Standard normal noise of videos whose frames belong together.

    With independent :math:`\epsilon_i` for every frame, which are drawn first whatever the kind, one :math:`\epsilon` for all
    of them, and :math:`a = \alpha / \sqrt{1 + \alpha^2}`, :math:`b = 1 / \sqrt{1 + \alpha^2}`,

    .. math:: \text{mixed: } n_i = a\, \epsilon + b\, \epsilon_i \qquad
        \text{progressive: } n_1 = \epsilon_1,\ n_i = a\, n_{i-1} + b\, \epsilon_i \qquad
        \text{shared: } n_i = \epsilon

    Two frames of mixed noise have the correlation :math:`a^2`, those of progressive noise :math:`a^{|i - j|}`.

    Args:
        kind: "independent", "mixed", "progressive" or "shared".
        shape: (B, C, F, h, w).
        generator: Source of the draws.
        alpha: At least 0.

    Raises:
        ValueError: for another kind, shape or strength.

    Source: PYoCo (Ge et al., arXiv:2305.10474), Sec. 4.
    """
    if kind not in KINDS or len(shape) != 5 or alpha < 0:
        raise ValueError(
            f"expected one of {', '.join(KINDS)}, a shape (B, C, F, h, w) and alpha of at least 0; got {kind!r},"
            f" {tuple(shape)}, {alpha}"
        )
    own = torch.randn(tuple(shape), generator=generator)
    a, b = alpha / math.sqrt(1 + alpha**2), 1 / math.sqrt(1 + alpha**2)
    if kind == "independent":
        return own
    if kind == "progressive":
        frames = [own[:, :, 0]]
        for frame in own.unbind(2)[1:]:
            frames.append(a * frames[-1] + b * frame)
        return torch.stack(frames, dim=2)
    common = torch.randn((*shape[:2], 1, *shape[3:]), generator=generator)
    return common.expand(tuple(shape)).clone() if kind == "shared" else a * common + b * own


def closed_form_share(correlations: Tensor, level: float = LEVEL) -> float:
    r"""The share of long samples of correlated Gaussian frames that pass the test of Jarque and Bera.

    The sample's third and fourth cumulants are means of Hermite polynomials, whose covariances are powers of the frames'
    correlations :math:`\rho_{ij}`. So the statistic tends to

    .. math:: J \to \lambda_3 X + \lambda_4 Y, \qquad \lambda_k = \frac 1 F \sum_{ij} \rho_{ij}^k,

    X and Y independent and :math:`\chi^2` of one degree of freedom; independent frames give :math:`\lambda_k = 1`.

    Args:
        correlations: Of every frame with every other one.
        level: p above it passes.

    Shapes:
        correlations (F, F) -> a share in [0, 1].
    """
    third, fourth = (correlations.double().pow(power).sum().item() / len(correlations) for power in (3, 4))
    limit, count = -2 * math.log(level), 4000
    edge, total = math.sqrt(limit / third), 0.0
    for place in range(count):  # X = third z^2 with z from 0 to the edge; the angle smooths the end of the range
        z = edge * math.sin(math.pi / 2 * (place + 0.5) / count)
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) * math.sqrt(edge**2 - z * z)
        total += density * math.erf(math.sqrt((limit - third * z * z) / (2 * fourth)))
    return 2 * total * math.pi / 2 / count
