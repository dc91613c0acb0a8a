import hostile
import numpy as np
import pytest
from conftest import drawing
from PIL import Image, ImageChops, ImageDraw, ImageOps

from htr import images as htr_images
from htr.files import file_name, list_files
from htr.images import Geometry, ImageError, cut_margins, load_image, read_images, to_grey

DEFAULT = Geometry(height=64, max_scale=1.2, max_width=2048)
SETTINGS = Geometry(height=48, max_scale=3, max_width=2048)


def load_pixels(path, geometry):
    return load_image(path, geometry).pixels


def with_alpha(grey: Image.Image, mode: str) -> Image.Image:
    """Black ink whose darkness is all in the alpha channel: convert('L') would make it all black."""
    black = Image.new("LA" if mode == "LA" else "RGBA", grey.size)
    black.putalpha(ImageOps.invert(grey))
    return black


def palette_with_transparency(grey: Image.Image) -> Image.Image:
    image = ImageOps.invert(grey).convert("P")  # index 0 = paper
    image.putpalette([0] * 768)
    image.info["transparency"] = bytes(range(256))  # darkness is opacity
    return image


ENCODINGS = {
    "L": lambda g: g,
    "RGB": lambda g: g.convert("RGB"),
    "RGBA, opaque": lambda g: g.convert("RGBA"),
    "RGBA, ink in alpha": lambda g: with_alpha(g, "RGBA"),
    "LA, ink in alpha": lambda g: with_alpha(g, "LA"),
    "P": lambda g: g.convert("P"),
    "P, ink in transparency": palette_with_transparency,
    "CMYK": lambda g: g.convert("CMYK"),
    "YCbCr": lambda g: g.convert("YCbCr"),
    "HSV": lambda g: g.convert("RGB").convert("HSV"),
    "I;16": lambda g: Image.frombytes("I;16", g.size, b"".join((v * 257).to_bytes(2, "little") for v in g.tobytes())),
    "I": lambda g: g.convert("I").point(lambda v: v * 257 + 0),
    "F, 0 to 1": lambda g: g.convert("F").point(lambda v: v * (1 / 255) + 0),
    "F, 0 to 255": lambda g: g.convert("F"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_mode_gives_the_same_grey(encoding):
    reference = drawing()
    grey = to_grey(ENCODINGS[encoding](reference))
    assert grey.mode == "L"
    assert ImageChops.difference(grey, reference).getextrema()[1] <= 1  # rounding


def test_one_bit():
    reference = drawing(levels=False)
    assert ImageChops.difference(to_grey(reference.convert("1")), reference).getbbox() is None


@pytest.mark.parametrize(
    ("suffix", "encoding"),
    [
        (".png", "L"),
        (".png", "RGB"),
        (".png", "P"),
        (".png", "LA, ink in alpha"),
        (".png", "RGBA, ink in alpha"),
        (".png", "P, ink in transparency"),
        (".png", "I;16"),
        (".tif", "L"),
        (".tif", "CMYK"),
        (".tif", "I;16"),
        (".tif", "F, 0 to 1"),
        (".bmp", "RGB"),
        (".gif", "P"),
        (".pgm", "L"),
        (".pgm", "I"),
        (".webp", "RGB"),
    ],
)
def test_every_file_gives_the_same_input(tmp_path, suffix, encoding):
    drawing().save(tmp_path / "reference.png")
    options = {"lossless": True} if suffix == ".webp" else {}
    ENCODINGS[encoding](drawing()).save(tmp_path / f"other{suffix}", **options)
    reference, other = (load_pixels(tmp_path / name, SETTINGS) for name in ("reference.png", f"other{suffix}"))
    assert reference.shape == other.shape
    assert np.abs(reference.astype(int) - other.astype(int)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """A camera stores the picture turned and says so; a viewer shows it upright."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # shown by turning 90 degrees clockwise
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = drawing().transpose(undo[orientation]) if orientation > 1 else drawing()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    drawing().save(tmp_path / "upright.png")
    assert np.array_equal(
        load_pixels(tmp_path / "turned.png", SETTINGS), load_pixels(tmp_path / "upright.png", SETTINGS)
    )


def test_margins_are_cut_to_two_pixels():
    image = Image.new("L", (300, 100), 255)
    ImageDraw.Draw(image).rectangle((100, 40, 159, 59), fill=30)
    cut = cut_margins(image)
    assert cut.size == (64, 24)
    assert cut.getpixel((2, 2)) == 30
    assert cut.getpixel((1, 1)) == 255


def test_light_on_dark_is_inverted():
    assert ImageChops.difference(cut_margins(ImageOps.invert(drawing())), cut_margins(drawing())).getbbox() is None


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_stays(value):
    assert cut_margins(Image.new("L", (50, 20), value)).size == (50, 20)


def test_height_is_fixed_and_the_aspect_ratio_kept(tmp_path):
    image = Image.new("L", (400, 100), 255)
    ImageDraw.Draw(image).rectangle((10, 10, 205, 55), outline=0, width=3)  # 196 x 46, with the margin 200 x 50
    image.save(tmp_path / "a.png")
    assert load_pixels(tmp_path / "a.png", DEFAULT._replace(height=48)).shape == (48, 192)
    assert load_pixels(tmp_path / "a.png", DEFAULT._replace(height=32)).shape == (32, 128)
    assert load_pixels(tmp_path / "a.png", DEFAULT._replace(height=100, max_scale=2)).shape == (100, 400)
    assert load_pixels(tmp_path / "a.png", DEFAULT._replace(height=48, max_width=100)).shape == (48, 100)


def test_a_small_picture_is_not_blown_up(tmp_path):
    """It keeps its letters' size and lies in the middle of the paper."""
    image = Image.new("L", (200, 40), 255)
    ImageDraw.Draw(image).rectangle((50, 10, 145, 25), outline=0, width=2)  # 96 x 16, with the margin 100 x 20
    image.save(tmp_path / "a.png")
    line = load_pixels(tmp_path / "a.png", DEFAULT._replace(max_scale=1))
    assert line.shape == (64, 100)
    assert (line[[24, 25, 38, 39], 2:98] == 0).all()
    assert line[:22].min() == line[42:].min() == 255


def test_a_whole_text_line_fits(tmp_path):
    """A line of eighty letters is not squeezed by the default width."""
    image = Image.new("L", (1600, 64), 255)
    ImageDraw.Draw(image).line((0, 0, 1599, 63), fill=0, width=3)
    image.save(tmp_path / "line.png")
    assert load_pixels(tmp_path / "line.png", DEFAULT).shape == (64, 1600)


def test_unreadable_files_say_why(tmp_path, monkeypatch):
    drawing().convert("RGB").save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    for name in ("cut.jpg", "empty.png", "text.png"):
        with pytest.raises(ImageError, match=r"cannot be read: ."):
            load_pixels(tmp_path / name, SETTINGS)
    with pytest.raises(ImageError, match="is a folder"):
        load_pixels(tmp_path / "folder.png", SETTINGS)
    with pytest.raises(ImageError, match="not found"):
        load_pixels(tmp_path / "none.png", SETTINGS)
    monkeypatch.setattr(htr_images, "MAX_PIXELS", 4000)
    with pytest.raises(ImageError, match="120 x 40 pixels"):
        load_pixels(tmp_path / "good.jpg", SETTINGS)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_images_come_in_order_with_their_errors(tmp_path, workers):
    paths = []
    for n in range(25):
        image = Image.new("L", (100, 20), 255)
        ImageDraw.Draw(image).rectangle((5, 5, 15 + n, 14), fill=0)
        image.save(tmp_path / f"{n}.png")
        paths.append(tmp_path / f"{n}.png")
    paths[7].write_bytes(b"broken")
    images = list(read_images(paths, SETTINGS, workers, window=4))
    assert len(images) == 25
    for n, image in enumerate(images):
        if n == 7:
            assert isinstance(image, ImageError)
        else:
            assert np.array_equal(image.pixels, load_pixels(paths[n], SETTINGS))


def test_reading_runs_two_windows_ahead_at_most(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(htr_images, "load_image", lambda path, *_: started.append(path))
    images = read_images(list(range(100)), SETTINGS, workers=2, window=10)
    next(images)
    images.close()
    assert len(started) <= 20


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    return folder, hostile.write_bad(folder)


def test_hostile_files_are_refused_with_a_reason(bad):
    folder, reasons = bad
    assert len(reasons) > 45
    for name, reason in reasons.items():
        with pytest.raises(ImageError) as error:
            load_pixels(folder / name, SETTINGS)
        assert reason in str(error.value), name
        assert len(str(error.value)) < 300 and str(error.value).isprintable()


def test_odd_pictures_are_read(tmp_path):
    names = hostile.write_odd(tmp_path)
    files = list_files(tmp_path).files
    assert {file_name(name) for name in files} == names
    for name in files:
        line = load_pixels(tmp_path / name, SETTINGS)
        assert line.shape[0] == SETTINGS.height and 1 <= line.shape[1] <= SETTINGS.max_width


@pytest.mark.filterwarnings("ignore:::PIL")
def test_whatever_bytes_a_file_has_it_is_read_or_refused(tmp_path):
    read = refused = 0
    for data in hostile.mutations(seed=0, count=400):
        (tmp_path / "a.png").write_bytes(data)
        try:
            line = load_pixels(tmp_path / "a.png", SETTINGS)
            assert line.dtype == np.uint8 and line.shape[0] == SETTINGS.height
            read += 1
        except ImageError:
            refused += 1
    assert read > 40 and refused > 40
