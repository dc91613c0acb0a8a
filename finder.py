"""The network that finds the lines of a page: maps of baselines and of their ends, from the page's ink."""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from htr.pictures.line_maps import CHANNELS, MAPS, STEM


class Block(nn.Module):
    """Convolutions one after the other, each with BatchNorm and ReLU. channels: before, after the first, and so on."""

    def __init__(self, *channels: int, size: int = 3, stride: int = 1):
        super().__init__()
        pairs = list(pairwise(channels))
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, size, stride, size // 2, bias=False) for before, after in pairs
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _, after in pairs)

    def fuse(self) -> None:
        self.convs = nn.ModuleList(map(fuse_conv_bn_eval, self.convs, self.norms))
        self.norms = nn.ModuleList(nn.Identity() for _ in self.convs)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        return x


class LineFinder(nn.Module):
    """A U-Net (Ronneberger, Fischer and Brox 2015, arXiv:1505.04597) of few channels.

    It labels the pixels of baselines, as ARU-Net does (Grüning et al. 2019, arXiv:1802.03345), and their ends apart.
    """

    def __init__(self):
        super().__init__()
        self.stem = Block(1, CHANNELS[0], size=STEM, stride=2)
        self.down = nn.ModuleList(Block(before, here, here) for before, here in pairwise((CHANNELS[0], *CHANNELS)))
        self.up = nn.ModuleList(Block(below + here, here) for below, here in pairwise(CHANNELS[::-1]))
        self.head = nn.Conv2d(CHANNELS[0], MAPS, 1)
        self.to(memory_format=torch.channels_last)  # faster on CPUs

    def fuse(self) -> "LineFinder":
        """Fold each BatchNorm into the convolution before it, for use only: the same result in less time."""
        for part in (self.eval().stem, *self.down, *self.up):
            part.fuse()
        return self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def exported(self) -> dict[str, np.ndarray]:
        """The weights of a fused network as `htr.pictures.line_maps.weight_shapes` names them."""
        blocks = {"stem": self.stem}
        blocks |= {f"down{n}.": block for n, block in enumerate(self.down)}
        blocks |= {f"up{n}.": block for n, block in enumerate(self.up)}
        convs = {f"{name}{n}": conv for name, block in blocks.items() for n, conv in enumerate(block.convs)}
        weights = {}
        for name, conv in (convs | {"head": self.head}).items():
            weights |= {f"{name}.weight": conv.weight.cpu().numpy(), f"{name}.bias": conv.bias.cpu().numpy()}
        return weights

    def forward(self, ink: Tensor) -> Tensor:
        """ink (N, 1, H, W) in [0, 1], H and W multiples of `line_maps.MULTIPLE` -> logits (N, MAPS, H / 2, W / 2)."""
        x = self.stem(ink.contiguous(memory_format=torch.channels_last))  # (N, C0, H / 2, W / 2)
        skipped = []
        for n, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if n else x)  # (N, Cn, H / 2^(n + 1), W / 2^(n + 1))
            skipped.append(x)
        for block, skip in zip(self.up, skipped[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        return self.head(x)
