import struct

import hostile
import numpy as np
import pytest
from conftest import drawing
from PIL import Image, ImageChops, ImageDraw, ImageOps, PngImagePlugin

from htr.pictures import images as htr_images
from htr.pictures.images import Geometry, ImageError, cut_margins, find_files, load_image, read_images, to_grey
from htr.system.files import file_name, list_files

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
    "LAB": lambda g: Image.merge("LAB", (g, *[Image.new("L", g.size, 128)] * 2)),
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


# -------------------------------------------------------------------------------------- as people have them


def alike(path, reference, allowed=40) -> bool:
    """Whether a file gives the line that the drawing gives, but for what rounding and compression do."""
    found = load_pixels(path, DEFAULT).astype(int)
    return found.shape == reference.shape and np.abs(found - reference).mean() < allowed / 10


@pytest.fixture
def plain(tmp_path) -> np.ndarray:
    drawing(levels=False).save(tmp_path / "plain.png")
    return load_pixels(tmp_path / "plain.png", DEFAULT)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "RGB", "RGBA", "CMYK", "F"])
def test_a_tiff_turned_by_its_tag(tmp_path, plain, mode, orientation, compression):
    image = drawing(levels=False)
    image = in_16_bits(image, 257) if mode == "I;16" else image.convert(mode)
    options = {"compression": compression} if compression else {}
    image.transpose(TURNS[orientation]).save(tmp_path / "turned.tif", tiffinfo={274: orientation}, **options)
    assert alike(tmp_path / "turned.tif", plain)


def in_16_bits(image: Image.Image, factor: int) -> Image.Image:
    return Image.fromarray((np.asarray(image, dtype=np.uint32) * factor).astype(np.uint16))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("rows_per_strip", [40, 7])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_with_planes_of_16_bits(tmp_path, plain, order, rows_per_strip, orientation):
    image = drawing(levels=False)
    values = np.asarray(image.transpose(TURNS[orientation]) if orientation > 1 else image).astype(np.uint16)
    values = values * 257
    data = hostile.planar_tiff(np.stack([values] * 3), order, rows_per_strip, [(274, 3, [orientation])])
    (tmp_path / "planes.tif").write_bytes(data)
    assert alike(tmp_path / "planes.tif", plain)


def test_planes_of_16_bits_with_alpha(tmp_path, plain):
    ink = 257 * (255 - np.asarray(drawing(levels=False)).astype(np.uint16))
    planes = np.stack([np.zeros_like(ink)] * 3 + [ink])
    (tmp_path / "planes.tif").write_bytes(hostile.planar_tiff(planes, "<", 11, [(338, 3, [2])]))
    assert alike(tmp_path / "planes.tif", plain)


@pytest.mark.parametrize(("extra", "compression"), [((), 5), ([(279, 4, [10**9] * 3)], 1), ([(279, 4, [9])], 1)])
def test_planes_that_are_not_read_say_so(tmp_path, extra, compression):
    """Compressed ones, and strips of other lengths than the pixels take."""
    planes = np.zeros((3, 8, 8), dtype=np.uint16)
    data = hostile.planar_tiff(planes, "<", 8, extra, compression)
    (tmp_path / "planes.tif").write_bytes(data)
    with pytest.raises(ImageError, match=r"separate colour planes.*save it as a PNG"):
        load_image(tmp_path / "planes.tif", DEFAULT)


@pytest.mark.parametrize(
    "change",
    [
        lambda grey: in_16_bits(grey, 4),  # 10 bits
        lambda grey: in_16_bits(grey, 16),  # 12 bits
        lambda grey: Image.fromarray(np.asarray(grey).astype(np.uint16) * 16 + 40_000),
        lambda grey: Image.fromarray(np.asarray(grey).astype(np.int32) * 9000 - 10**6),
        lambda grey: Image.fromarray(np.asarray(grey).astype(np.float32) / 255),
        lambda grey: Image.fromarray(np.asarray(grey).astype(np.float32) * 16),
        lambda grey: Image.fromarray(np.asarray(grey).astype(np.float32) * -1e-3 + 5),  # ink above, paper below
        lambda grey: Image.fromarray(np.asarray(grey).astype(np.float32) * 1e30),
    ],
)
@pytest.mark.parametrize("ink", [0, 120])
@pytest.mark.parametrize("odd_pixel", [False, True])
def test_numbers_of_any_range(tmp_path, plain, change, ink, odd_pixel):
    image = change(drawing(levels=False).point([ink + value * (255 - ink) // 255 for value in range(256)]))
    if odd_pixel:
        values = np.array(image)
        most = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1e33
        values[1, 1] = -most if values[0, 0] < values.max() else most  # beyond the paper's
        image = Image.fromarray(values)
    image.save(tmp_path / "a.tif")
    assert alike(tmp_path / "a.tif", plain)


@pytest.mark.parametrize("value", [0, 3, 60_000])
def test_blank_numbers_stay_blank(tmp_path, value):
    noise = np.random.default_rng(0).integers(0, 4, (40, 120))
    Image.fromarray((noise + value).astype(np.uint16)).save(tmp_path / "a.png")
    assert (load_pixels(tmp_path / "a.png", DEFAULT) > 128).mean() > 0.999


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((20, 30, 90), (250, 240, 190)),
        ((200, 30, 30), (255, 255, 255)),
        ((250, 230, 60), (255, 255, 255)),  # a yellow pen
        ((200, 60, 60), (60, 122, 60)),  # of one luminance
        ((255, 255, 255), (40, 60, 130)),
        ((120, 120, 120), (170, 140, 90)),
    ],
)
def test_coloured_ink_on_coloured_paper(tmp_path, plain, ink, paper):
    ImageOps.colorize(drawing(levels=False), ink, paper).save(tmp_path / "a.png")
    assert alike(tmp_path / "a.png", plain)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("ink", [0, 100, 200, 255])
def test_ink_on_transparency(tmp_path, plain, mode, ink):
    grey = Image.new("L", (120, 40), ink)
    image = Image.merge("LA", (grey, ImageOps.invert(drawing(levels=False))))
    image.convert(mode).save(tmp_path / "a.png")
    assert alike(tmp_path / "a.png", plain)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
@pytest.mark.parametrize("alpha", [0, 1, 90])
def test_alpha_that_is_the_same_everywhere_means_nothing(tmp_path, plain, mode, alpha):
    image = drawing(levels=False)
    if mode == "P":
        image = image.convert("P")
        image.save(tmp_path / "a.png", transparency=bytes([alpha]) * 256)
    else:
        image = image.convert(mode)
        image.putalpha(alpha)
        image.save(tmp_path / "a.png")
    assert alike(tmp_path / "a.png", plain)


def test_alpha_from_0_to_1(tmp_path, plain):
    """Some programs write 1 where they mean opaque."""
    ink = ImageOps.invert(drawing(levels=False)).point([value // 128 for value in range(256)])
    Image.merge("LA", (Image.new("L", ink.size, 0), ink)).save(tmp_path / "a.png")
    assert alike(tmp_path / "a.png", plain, allowed=80)


def test_a_windows_bitmap_with_unused_alpha(tmp_path, plain):
    """32 bits a pixel, of which the last eight are 0 (BITMAPV4HEADER with an alpha mask)."""
    rgb = np.asarray(drawing(levels=False).convert("RGB"))[::-1, :, ::-1]
    pixels = np.concatenate([rgb, np.zeros((40, 120, 1), dtype=np.uint8)], 2).tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, 120, 40, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(68, b"\0")
    file_header = b"BM" + struct.pack("<IHHI", 14 + 108 + len(pixels), 0, 0, 14 + 108)
    (tmp_path / "a.bmp").write_bytes(file_header + header + pixels)
    assert alike(tmp_path / "a.bmp", plain)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_jpeg_without_its_last_bytes_has_all_its_pixels(tmp_path, plain, options, lost):
    drawing(levels=False).save(tmp_path / "a.jpg", quality=95, **options)
    whole = load_pixels(tmp_path / "a.jpg", DEFAULT)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-lost])
    assert np.array_equal(load_pixels(tmp_path / "a.jpg", DEFAULT), whole)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("lost", [40, 60, 200])
def test_a_jpeg_without_some_of_its_pixels_is_refused(tmp_path, mode, lost):
    noise = np.random.default_rng(0).integers(0, 256, (40, 120), dtype=np.uint8)
    for name, image in (("drawn.jpg", drawing()), ("noise.jpg", Image.fromarray(noise))):
        image.convert(mode).save(tmp_path / name, quality=95)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-lost])
        with pytest.raises(ImageError, match="truncated"):
            load_image(tmp_path / name, DEFAULT)


def test_a_bitmap_without_the_padding_of_its_last_row(tmp_path):
    drawing((117, 40)).save(tmp_path / "a.bmp")
    whole = load_pixels(tmp_path / "a.bmp", DEFAULT)
    data = (tmp_path / "a.bmp").read_bytes()
    (tmp_path / "a.bmp").write_bytes(data[:-3])  # 117 bytes a row, padded to 120
    assert np.array_equal(load_pixels(tmp_path / "a.bmp", DEFAULT), whole)
    (tmp_path / "a.bmp").write_bytes(data[:-4])
    with pytest.raises(ImageError, match="truncated"):
        load_image(tmp_path / "a.bmp", DEFAULT)


def test_a_png_with_megabytes_beside_its_pixels(tmp_path, plain):
    text = PngImagePlugin.PngInfo()
    text.add_text("zTXt", "a" * 3_000_000, zip=True)
    text.add_itxt("iTXt", "b" * 2_000_000, zip=True)
    text.add_text("tEXt", "c" * 2_000_000)
    profile = bytes(5_000_000)
    drawing(levels=False).save(tmp_path / "a.png", pnginfo=text, icc_profile=profile)
    assert np.array_equal(load_pixels(tmp_path / "a.png", DEFAULT), plain)


NAMES = {
    "a.jfif": "JPEG", "a.jpe": "JPEG", "a.pbm": "PPM", "a.pnm": "PPM", "a.mpo": "MPO", "a.apng": "PNG", "a.dib": "DIB",
    "A.JFIF": "JPEG", "a.tiff": "TIFF",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_images_by_their_rarer_names(tmp_path, plain, name):
    image = drawing(levels=False).convert("1" if name == "a.pbm" else "RGB")
    image.save(tmp_path / name, NAMES[name])
    assert ("plain.png", tmp_path / "plain.png") in find_files([tmp_path]).files
    assert (name, tmp_path / name) in find_files([tmp_path]).files
    assert alike(tmp_path / name, plain, allowed=80)


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic", "HEIC"),
        ("a.heic", b"nothing known", "HEIC"),
        ("phone.jpg", b"\0\0\0\x18ftypheix", "HEIC"),
        ("a.AVIF", b"\0\0\0\x1cftypavif", "AVIF"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        ("a.j2k", b"\xff\x4f\xff\x51\0", "JPEG 2000"),
        ("a.jxl", b"\xff\x0a", "JPEG XL"),
        ("scan.png", b"%PDF-1.7", "PDF"),
    ],
)
def test_formats_that_are_not_read_are_named(tmp_path, name, head, kind):
    (tmp_path / name).write_bytes(head + bytes(40))
    assert find_files([tmp_path]).files == [(name, tmp_path / name)]
    with pytest.raises(ImageError, match=f"in {kind}; convert it to PNG or JPEG"):
        load_image(tmp_path / name, DEFAULT)


@pytest.mark.parametrize("suffix", ["tif", "gif", "apng", "webp", "mpo"])
def test_pages_are_counted(tmp_path, plain, suffix):
    image, other = drawing(levels=False).convert("RGB"), drawing().convert("RGB")
    options = {"lossless": True} if suffix == "webp" else {}
    form = {"apng": "PNG", "tif": "TIFF"}.get(suffix, suffix.upper())
    image.save(tmp_path / f"a.{suffix}", form, save_all=True, append_images=[other, image], **options)
    assert load_image(tmp_path / f"a.{suffix}", DEFAULT).pages == 3
    assert alike(tmp_path / f"a.{suffix}", plain, allowed=80)
    assert load_image(tmp_path / "plain.png", DEFAULT).pages == 1


def test_greys_stay_as_they_are_without_levels(tmp_path):
    grey = drawing().point([100 + value // 2 for value in range(256)])
    grey.save(tmp_path / "a.png")
    found = load_pixels(tmp_path / "a.png", DEFAULT._replace(levels=False))
    assert {100, 227, 255} <= set(np.unique(found).tolist())  # ink, the drawing's paper, that around it
