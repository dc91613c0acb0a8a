"""A store of decoded lines: their bytes packed in memory, or in a file that is mapped into it.

The file holds the bytes of all images, then an index, then the index's length in eight bytes. It appears whole or not
at all, so two processes may write it at once, and one may be killed while it does.
"""

import io
import os
from array import array
from collections.abc import Iterable, Sequence
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from htr.system.files import whole_file


class PackedImages:
    """A sequence of grey uint8 images (height, W_i), white paper = 255.

    data: (bytes,) uint8, each image's rows from the first with ink to the last, one image after the other.
    layout: (N, 4), each image's first byte, first row, number of rows and width. widths: the last of them.
    """

    def __init__(self, height: int, data: Tensor, layout: Tensor):
        self.height, self.data, self.layout = height, data, layout.tolist()
        self.widths: list[int] = layout[:, 3].tolist()

    @classmethod
    def of(cls, images: Iterable[np.ndarray]) -> "PackedImages":
        """Keep uint8 images (H, W_i) in memory."""
        buffer = io.BytesIO()
        height, layout = _append(images, buffer)
        data = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8) if buffer.tell() else torch.empty(0).byte()
        return cls(height, data, layout)

    @classmethod
    def mapped(cls, path: str | os.PathLike, key: str) -> tuple["PackedImages", dict[str, Any]] | None:
        """The images of a file and the facts stored with them; None unless it is whole and was written with `key`.

        Where the drive cannot map files into memory, they are read into it.
        """
        try:
            with open(path, "rb") as file:
                end = file.seek(-8, os.SEEK_END)
                length = int.from_bytes(file.read(8), "little")
                file.seek(end - length)
                index = torch.load(io.BytesIO(file.read(length)), weights_only=True)
            if index["key"] != key or index["bytes"] != end - length:
                return None
            try:
                data = torch.from_file(os.fspath(path), shared=False, size=index["bytes"], dtype=torch.uint8)
            except RuntimeError:  # a drive that cannot map files into memory
                data = torch.from_numpy(np.fromfile(path, np.uint8, index["bytes"]))
            return cls(index["height"], data, index["layout"]), index["facts"]
        except Exception:  # whatever is wrong with it, it will be written anew
            return None

    @staticmethod
    def write(path: str | os.PathLike, key: str, images: Iterable[np.ndarray], facts: dict[str, Any]) -> None:
        """Write images to a file for `mapped`, with `facts` as they stand once the last one is written.

        `key` should change whenever the images would. Raises HTRError where the file cannot be written.
        """
        with whole_file(path, "wb") as file:
            height, layout = _append(images, file)
            index = {"key": key, "bytes": file.tell(), "height": height, "layout": layout, "facts": facts}
            buffer = io.BytesIO()
            torch.save(index, buffer)
            file.write(buffer.getvalue())
            file.write(buffer.tell().to_bytes(8, "little"))

    def __len__(self) -> int:
        return len(self.layout)

    def __getitem__(self, i: int) -> np.ndarray:
        """The image as uint8 (height, W_i)."""
        return self.batch([i], self.widths[i])[0, 0].cpu().numpy()

    def batch(self, indices: Sequence[int], width: int) -> Tensor:
        """Images at the left of white paper of one width: uint8 (N, 1, height, width), on the device of the bytes."""
        images = torch.full((len(indices), 1, self.height, width), 255, dtype=torch.uint8, device=self.data.device)
        for image, i in zip(images, indices, strict=True):
            start, top, rows, columns = self.layout[i]
            image[0, top : top + rows, :columns] = self.data[start : start + rows * columns].view(rows, columns)
        return images

    def to(self, device: torch.device) -> "PackedImages":
        """The same images with their bytes, and so the batches made of them, in the memory of a device."""
        moved = PackedImages.__new__(PackedImages)
        moved.__dict__.update(self.__dict__, data=self.data.to(device))
        return moved


def _append(images: Iterable[np.ndarray], file: IO[bytes]) -> tuple[int, Tensor]:
    """Write images to the end of `file`; returns their height and their layout."""
    height, end, layout = 0, 0, array("q")
    for image in images:
        inked = np.flatnonzero((image < 255).any(1)).tolist()
        top, rows = (inked[0], inked[-1] + 1 - inked[0]) if inked else (0, 0)
        height, width = image.shape
        file.write(image[top : top + rows].tobytes())
        layout.extend((end, top, rows, width))
        end += rows * width
    return height, torch.tensor(layout, dtype=torch.int64).view(-1, 4)
