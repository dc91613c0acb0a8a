import numpy as np
import pytest
import torch

from htr.pictures.packed import PackedImages
from htr.system.scripts import HTRError


def pictures(count=7, height=16):
    """Random pictures with paper above and below, a blank one, and one that is inked to its edges."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for n in range(count):
        image = torch.full((height, 10 + n), 255, dtype=torch.uint8)
        image[n : 12 - n] = torch.randint(0, 256, (12 - 2 * n if n < 6 else 0, 10 + n), generator=generator).byte()
        images.append(image.numpy())
    images.append(np.zeros((height, 5), dtype=np.uint8))
    return images


def test_pictures_come_back_as_they_were():
    images = pictures()
    kept = PackedImages.of(iter(images))
    assert len(kept) == len(images)
    assert kept.widths == [image.shape[1] for image in images]
    assert all(np.array_equal(a, b) for a, b in zip(kept, images, strict=True))
    assert len(kept.data) < sum(image.size for image in images)
    assert len(PackedImages.of([])) == 0


def test_a_batch_is_on_white_paper():
    images = pictures()
    batch = PackedImages.of(images).batch([3, 0], 20)
    assert batch.shape == (2, 1, 16, 20)
    assert np.array_equal(batch[0, 0, :, :13], images[3])
    assert np.array_equal(batch[1, 0, :, :10], images[0])
    assert (batch[1, 0, :, 10:] == 255).all()


def test_pictures_of_a_file_are_mapped_with_their_facts(tmp_path):
    images, path, facts = pictures(), tmp_path / "folder" / "a.pictures", {"seen": 0}

    def counted():
        for image in images:
            facts["seen"] += 1
            yield image

    PackedImages.write(path, "key", counted(), facts)
    mapped, kept_facts = PackedImages.mapped(path, "key")
    assert kept_facts == {"seen": len(images)}
    assert all(np.array_equal(a, b) for a, b in zip(mapped, images, strict=True))
    assert torch.equal(mapped.to(torch.device("cpu")).batch([1], 16), mapped.batch([1], 16))


def test_only_a_whole_file_with_the_right_key_is_taken(tmp_path):
    path = tmp_path / "a.pictures"
    assert PackedImages.mapped(path, "key") is None
    PackedImages.write(path, "key", pictures(), {})
    assert PackedImages.mapped(path, "other") is None
    whole = path.read_bytes()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert PackedImages.mapped(path, "key") is None
    path.write_bytes(whole)
    assert PackedImages.mapped(path, "key") is not None


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pictures"
    PackedImages.write(path, "key", pictures(), {})

    def broken():
        yield pictures()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PackedImages.write(path, "new", broken(), {})
    assert PackedImages.mapped(path, "key") is not None
    assert [file.name for file in tmp_path.iterdir()] == ["a.pictures"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HTRError, match="cannot be written"):
        PackedImages.write(tmp_path / "file" / "a.pictures", "key", pictures(), {})
