"""Pictures of lines, decoded once and kept as compact bytes: in memory, or in a file that is mapped into it.

The file holds the bytes of all pictures, then an index, then the index's length in eight bytes. It appears whole or not
at all, so two processes may write it at once, and one may be killed while it does.
"""

import io
import os
from array import array
from collections.abc import Iterable, Sequence
from typing import IO, Any

import torch
from torch import Tensor

from files import whole_file


class Pictures:
    """A sequence of grey uint8 pictures (height, W_i), white paper = 255.

    data: (bytes,) uint8, each picture's rows from the first with ink to the last, one picture after the other.
    layout: (N, 4), each picture's first byte, first row, number of rows and width. widths: the last of them.
    """

    def __init__(self, height: int, data: Tensor, layout: Tensor):
        self.height, self.data, self.layout = height, data, layout.tolist()
        self.widths: list[int] = layout[:, 3].tolist()

    @classmethod
    def of(cls, images: Iterable[Tensor]) -> "Pictures":
        """Keep uint8 pictures (H, W_i) in memory."""
        buffer = io.BytesIO()
        height, layout = _append(images, buffer)
        data = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8) if buffer.tell() else torch.empty(0).byte()
        return cls(height, data, layout)

    @classmethod
    def mapped(cls, path: str | os.PathLike, key: str) -> tuple["Pictures", dict[str, Any]] | None:
        """The pictures of a file and the facts about them; None where there is no whole file that `write` got `key`
        for."""
        try:
            with open(path, "rb") as file:
                end = file.seek(-8, os.SEEK_END)
                length = int.from_bytes(file.read(8), "little")
                file.seek(end - length)
                index = torch.load(io.BytesIO(file.read(length)), weights_only=True)
            if index["key"] != key or index["bytes"] != end - length:
                return None
            data = torch.from_file(os.fspath(path), shared=False, size=index["bytes"], dtype=torch.uint8)
            return cls(index["height"], data, index["layout"]), index["facts"]
        except Exception:  # whatever is wrong with it, it will be written anew
            return None

    @staticmethod
    def write(path: str | os.PathLike, key: str, images: Iterable[Tensor], facts: dict[str, Any]) -> None:
        """Keep pictures in a file for `mapped`, with `facts` as they are when the last one is written.

        `key` should change whenever the pictures would. Raises HTRError where the file cannot be written.
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

    def __getitem__(self, i: int) -> Tensor:
        """The picture as uint8 (height, W_i)."""
        return self.batch([i], self.widths[i])[0, 0]

    def batch(self, indices: Sequence[int], width: int) -> Tensor:
        """Pictures at the left of white paper of one width: uint8 (N, 1, height, width), where the bytes are."""
        images = torch.full((len(indices), 1, self.height, width), 255, dtype=torch.uint8, device=self.data.device)
        for image, i in zip(images, indices, strict=True):
            start, top, rows, columns = self.layout[i]
            image[0, top : top + rows, :columns] = self.data[start : start + rows * columns].view(rows, columns)
        return images

    def to(self, device: torch.device) -> "Pictures":
        """The same pictures with their bytes, and the batches made of them, in the memory of a device."""
        moved = Pictures.__new__(Pictures)
        moved.__dict__.update(self.__dict__, data=self.data.to(device))
        return moved


def _append(images: Iterable[Tensor], file: IO[bytes]) -> tuple[int, Tensor]:
    """Write pictures to the end of `file`; returns their height and their layout."""
    height, end, layout = 0, 0, array("q")
    for image in images:
        inked = (image < 255).any(1).nonzero()[:, 0].tolist()
        top, rows = (inked[0], inked[-1] + 1 - inked[0]) if inked else (0, 0)
        height, width = image.shape
        file.write(image[top : top + rows].numpy().tobytes())
        layout.extend((end, top, rows, width))
        end += rows * width
    return height, torch.tensor(layout, dtype=torch.int64).view(-1, 4)
