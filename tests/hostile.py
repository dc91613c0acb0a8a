"""Files that nobody wants to meet in a folder of pictures, and pictures that are odd but good."""

import io
import os
import random
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps, PngImagePlugin, TiffImagePlugin


def picture(size: tuple[int, int] = (160, 40), seed: int = 0) -> Image.Image:
    """Strokes on paper."""
    image = Image.new("L", size, 235)
    draw, rng = ImageDraw.Draw(image), random.Random(seed)
    for _ in range(6):
        draw.line([(rng.randrange(size[0]), rng.randrange(size[1])) for _ in range(2)], fill=30, width=2)
    return image


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header promises that size, whatever the data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def write_bad(folder: Path) -> dict[str, str]:
    """Write what cannot be read; returns a part of the reason for each name."""
    image, reasons = picture(), {}

    def keep(name: str, content: bytes, reason: str = "cannot be read") -> None:
        (folder / name).write_bytes(content)
        reasons[name] = reason

    for suffix in ("jpg", "png", "tif", "gif", "webp", "bmp"):
        image.save(folder / f"whole.{suffix}")
        whole = (folder / f"whole.{suffix}").read_bytes()
        (folder / f"whole.{suffix}").unlink()
        for tenth in range(10) if suffix in ("jpg", "png") else (1, 5):
            keep(f"cut-{tenth}.{suffix}", whole[: len(whole) * tenth // 10])
        if suffix == "png":
            place = whole.index(b"IDAT") + 8
            keep("flipped.png", whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
            keep("called-jpg.jpg", b"\xff\xd8\xff" + whole[3:])
    keep("zero.jpg", b"")
    keep("text.jpg", b"a text, not a picture\n")
    keep("page.png", b"<!DOCTYPE html><html><body>404 not found</body></html>")
    keep("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>')
    keep("program.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n")  # no interpreter is started
    keep("archive.png", b"PK\x03\x04" + bytes(60))
    keep("noise.jpg", random.Random(0).randbytes(3000))
    for name, head, kind in (
        ("phone.heic", b"\0\0\0\x18ftypheic", "HEIC"),
        ("phone.jpg", b"\0\0\0\x18ftypheix", "HEIC"),
        ("small.avif", b"\0\0\0\x1cftypavif", "AVIF"),
        ("archive.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        ("new.jxl", b"\xff\x0a", "JPEG XL"),
        ("scan.png", b"%PDF-1.7", "PDF"),
    ):
        keep(name, head + bytes(40), f"it is in {kind}; convert it")
    keep("planes.tif", planar_tiff(np.zeros((3, 8, 8), dtype=np.uint16), "<", 8, compression=5), "save it as a PNG")
    keep("bomb.png", png_of(60_000, 60_000), "pixels")
    keep("bomb.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3), "")
    keep("bomb.ppm", b"P5 100000 100000 255\n", "pixels")
    keep("wide.bmp", b"BM" + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 2**31 - 1, 1, 1, 8) + bytes(24), "")
    keep("no-width.png", png_of(0, 10))
    keep("letters.ppm", b"P5 4x 4 255\n0000000000000000")
    Image.new("F", (30, 20), float("nan")).save(folder / "nan.tif")
    reasons["nan.tif"] = "not finite"
    (folder / "empty-folder.jpg").mkdir()
    reasons["empty-folder.jpg"] = "is a folder"
    if os.name == "posix":
        with open(folder / "huge.png", "wb") as file:
            file.truncate(2**40)  # a hole
        os.mkfifo(folder / "pipe.jpg")
        with socket.socket(socket.AF_UNIX) as plug:
            plug.bind(os.path.relpath(folder / "plug.png"))
        os.symlink("/dev/zero", folder / "device.png")
        os.symlink("nowhere.jpg", folder / "dangling.jpg")
        os.symlink("loop.jpg", folder / "loop.jpg")
        reasons |= dict.fromkeys(("pipe.jpg", "plug.png", "device.png"), "not a regular file")
        reasons |= {"huge.png": "bytes, more than", "dangling.jpg": "not found", "loop.jpg": "symbolic links"}
        if os.geteuid():
            keep("locked.jpg", b"x", "Permission denied")
            (folder / "locked.jpg").chmod(0)
    return reasons


def write_odd(folder: Path) -> set[str]:
    """Write what is odd and can be read; returns the names as they are to stand in the table."""
    image, names = picture(), set()

    def keep(name: str, odd: Image.Image, **options) -> None:
        odd.save(folder / name, **options)
        names.add(name)

    keep("one-pixel.png", picture((1, 1)))
    keep("long.png", picture((20_000, 20)))
    keep("tall.png", picture((20, 20_000)))
    keep("black.png", Image.new("L", (100, 40), 0))
    keep("white.png", Image.new("L", (100, 40), 255))
    keep("16-bit.png", Image.new("I;16", (50, 30), 40_000))
    keep("float.tif", image.convert("F"))
    keep("one-bit.tif", image.convert("1"))
    keep("cmyk.jpg", image.convert("CMYK"))
    keep("grey-alpha.png", image.convert("LA"))
    keep("colours.webp", image.convert("RGB"))
    keep("palette.png", image.convert("P"), transparency=3)
    keep("moving.gif", image.convert("P"), save_all=True, append_images=[picture(seed=1).convert("P")])
    keep("pages.tif", image, save_all=True, append_images=[picture((60, 90), 1)])
    exif = Image.Exif()
    exif[TiffImagePlugin.IMAGEWIDTH], exif[0x0112] = 5, 6  # stored turned by 90 degrees
    keep("turned.jpg", image.rotate(90, expand=True), exif=exif)
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.tif", tiffinfo={274: 6})
    values = np.asarray(image).astype(np.uint16)
    (folder / "planes-16-bit.tif").write_bytes(planar_tiff(np.stack([values * 257] * 3), ">", 7))
    keep("12-bit.png", Image.fromarray(values * 16))
    keep("numbers.tif", Image.fromarray(values.astype(np.float32) * 1e20 - 1e22))
    keep("unused-alpha.png", Image.merge("LA", (image, Image.new("L", image.size, 0))))
    keep("white-on-nothing.png", Image.merge("LA", (Image.new("L", image.size, 255), ImageOps.invert(image))))
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "a" * 3_000_000, zip=True)
    keep("much-text.png", image, pnginfo=text)
    image.save(folder / "no-end.jpg")
    (folder / "no-end.jpg").write_bytes((folder / "no-end.jpg").read_bytes()[:-2])
    for name, form in (("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.pnm", "PPM"), ("a.apng", "PNG"), ("a.dib", "DIB")):
        image.save(folder / name, form)
    image.convert("RGB").save(folder / "a.mpo", save_all=True, append_images=[image.convert("RGB")])
    image.convert("1").save(folder / "a.pbm")
    names |= {
        "turned.tif",
        "planes-16-bit.tif",
        "no-end.jpg",
        *(f"a.{s}" for s in "jfif jpe pnm apng dib mpo pbm".split()),
    }
    for name in ("with space.png", "UPPER.PNG", "comma,.png", "name.jpg.png", "=1+1.png", "-rf.png", "é😀.png"):
        keep(name, image)
    if os.name == "posix":
        for name in (
            "new\nline.png",
            "tab\t.png",
            "quote'\".png",
            "<script>.png",
            "\x1b[31mred.png",
            "a" * 240 + ".png",
        ):
            keep(name, image)
        image.save(folder / "raw.png")
        os.rename(folder / "raw.png", os.fsencode(folder) + b"/latin-\xe9.png")
        names.add(r"latin-\xe9.png")
        os.symlink("black.png", folder / "link.png")
        names.add("link.png")
    (folder / "folder.jpg").mkdir()
    image.save(folder / "folder.jpg" / "inside.jpg")
    names.add("folder.jpg/inside.jpg")
    return names


def planar_tiff(planes: np.ndarray, order: str, rows_per_strip: int, extra=(), compression=1) -> bytes:
    """A TIFF with separate planes uint16 (C, H, W), written down after the specification (TIFF 6.0, section 2)."""
    count, height, width = planes.shape
    strips = [
        plane[row : row + rows_per_strip].astype(f"{order}u2").tobytes()
        for plane in planes
        for row in range(0, height, rows_per_strip)
    ]
    tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, [16] * count), (259, 3, [compression]), (262, 3, [2])]
    tags += [(273, 4, [0] * len(strips)), (277, 3, [count]), (278, 3, [rows_per_strip])]
    tags += [(279, 4, [len(strip) for strip in strips]), (284, 3, [2])]
    replaced = {tag for tag, _, _ in extra}
    tags = sorted([tag for tag in tags if tag[0] not in replaced] + list(extra))
    end, values = 8 + 2 + 12 * len(tags) + 4, b""
    offsets_at = end + sum(len(v) * {3: 2, 4: 4}[k] for _, k, v in tags if len(v) * {3: 2, 4: 4}[k] > 4)
    starts = np.cumsum([offsets_at, *map(len, strips)])[:-1].tolist()
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, several in tags:
        data = struct.pack(f"{order}{len(several)}{'H' if kind == 3 else 'I'}", *(starts if tag == 273 else several))
        out += struct.pack(f"{order}HHI", tag, kind, len(several))
        out += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}I", end + len(values))
        values += data if len(data) > 4 else b""
    return out + b"\0" * 4 + values + b"".join(strips)


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """Pictures of all formats with bytes changed, cut out, doubled or taken from another, mostly near the header."""
    rng, wholes = random.Random(seed), []
    for n, (mode, form, options) in enumerate(
        [("L", "JPEG", {}), ("RGB", "JPEG", {"progressive": True}), ("L", "PNG", {}), ("P", "PNG", {"transparency": 0}),
         ("RGBA", "PNG", {}), ("L", "TIFF", {}), ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("1", "TIFF",
         {"compression": "group4"}), ("F", "TIFF", {}), ("P", "GIF", {}), ("L", "BMP", {}), ("RGB", "WEBP", {}),
         ("L", "PPM", {}), ("RGB", "TIFF", {"compression": "jpeg"}), ("CMYK", "JPEG", {})]
    ):  # fmt: skip
        buffer = io.BytesIO()
        picture((40 + n, 20), n).convert(mode).save(buffer, form, **options)
        wholes.append(buffer.getvalue())
    for _ in range(count):
        data = bytearray(rng.choice(wholes))
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            place = min(int(rng.expovariate(4 / len(data))), len(data) - 1)
            what = rng.randrange(6)
            if what == 0:
                data[place] ^= 1 << rng.randrange(8)
            elif what == 1:
                data[place] = rng.choice((0, 1, 127, 128, 255))
            elif what == 2:
                del data[place : place + rng.choice((1, 2, 4, 16))]
            elif what == 3:
                data[place:place] = data[place : place + rng.choice((1, 4, 40))]
            elif what == 4:
                other = rng.choice(wholes)
                data[place : place + 8] = other[place : place + 8]
            else:
                data[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"))
            if not data:
                data = bytearray(1)
        yield bytes(data)
