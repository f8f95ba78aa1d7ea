"""What a picture becomes, kind by kind: the rules of harness/training/data/preparation.py."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from harness.config import ConfigError
from harness.training.data.images import look, read_images
from harness.training.data.preparation import MOST_PIXELS, middle
from tests import formats

GREY = np.arange(96, dtype=np.uint8).reshape(8, 12) * 2 + 3
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def deep(levels: np.ndarray) -> np.ndarray:
    """Grey of 16 bits whose lower bits are anything."""
    return levels.astype(np.uint16) * 256 + np.arange(levels.size, dtype=np.uint16).reshape(levels.shape) % 256


def white_is_zero() -> bytes:
    """A TIFF of 16 bits that is stored as its negative."""
    stored = saved(65535 - deep(GREY), "TIFF")
    tag = stored.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01")  # photometric interpretation: 1
    return stored[: tag + 8] + b"\x00" + stored[tag + 9 :]


def twelve_bits() -> bytes:
    """A TIFF of 12 bits: two samples in three bytes."""
    levels = (deep(GREY) >> 4).reshape(-1, 2).astype(np.uint32)
    packed = np.stack([levels[:, 0] >> 4, (levels[:, 0] & 15) << 4 | levels[:, 1] >> 8, levels[:, 1] & 255], -1)
    stored = saved(np.zeros((8, 9), np.uint16), "TIFF")  # as many bytes
    for tag, old, new in ((0x100, 9, 12), (0x102, 16, 12)):
        before, after = (tag.to_bytes(2, "little") + b"\x04\x00\x01\x00\x00\x00" + bytes([x]) for x in (old, new))
        short = before[:2] + b"\x03" + before[3:], after[:2] + b"\x03" + after[3:]
        stored = stored.replace(before, after).replace(*short)
    return stored[:-144] + packed.astype(np.uint8).tobytes()


def turned(orientation: int, kind: str, pixels: np.ndarray = COLOUR) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    return saved(pixels, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


def see_through() -> np.ndarray:
    """Red that shines through in the upper half."""
    pixels = np.zeros((8, 12, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[4:, :, 3] = 255
    return pixels


def half_red() -> np.ndarray:
    pixels = np.full((8, 12, 3), 255, np.uint8)
    pixels[4:, :, 1:] = 0
    return pixels


def palette() -> Image.Image:
    image = Image.fromarray(np.repeat([[0], [1]], 4, 0).repeat(12, 1).astype(np.uint8), "P")
    image.putpalette([0, 9, 9, 255, 0, 0])
    return image


def grey(levels: np.ndarray) -> np.ndarray:
    return np.stack([levels] * 3, -1)


PICTURES: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "grey PNG": (lambda: saved(GREY, "PNG"), grey(GREY)),
    "16-bit PNG": (lambda: saved(deep(GREY), "PNG"), grey(GREY)),
    "16-bit TIFF": (lambda: saved(deep(GREY), "TIFF"), grey(GREY)),
    "16-bit TIFF, big-endian": (lambda: saved(deep(GREY).astype(">u2"), "TIFF"), grey(GREY)),
    "16-bit TIFF, white is zero": (white_is_zero, grey(GREY)),
    "12-bit TIFF": (twelve_bits, grey(GREY)),
    "16-bit PGM": (lambda: b"P5 12 8 65535\n" + deep(GREY).astype(">u2").tobytes(), grey(GREY)),
    "10-bit PGM": (lambda: b"P5 12 8 1020\n" + (GREY.astype(np.uint16) * 4).astype(">u2").tobytes(), grey(GREY)),
    "16-bit PNG with a transparent level": (
        lambda: saved(deep(GREY), "PNG", transparency=int(deep(GREY)[0, 0])),
        grey(np.where(np.arange(96).reshape(8, 12) == 0, 255, GREY).astype(np.uint8)),
    ),
    "black and white": (lambda: saved(Image.fromarray(GREY > 99), "PNG"), grey(np.where(GREY > 99, 255, 0))),
    "alpha": (lambda: saved(see_through(), "PNG"), half_red()),
    "alpha, WebP": (lambda: saved(see_through(), "WEBP", lossless=True), half_red()),
    "palette": (lambda: saved(palette(), "PNG", transparency=0), half_red()),
    "GIF": (lambda: saved(palette(), "GIF", transparency=0), half_red()),
    "CMYK": (lambda: saved(Image.fromarray(half_red()).convert("CMYK"), "TIFF"), half_red()),
    "animated GIF": (
        lambda: saved(palette(), "GIF", transparency=0, save_all=True, append_images=[Image.new("P", (12, 8), 1)]),
        half_red(),
    ),
    "TIFF of two pages": (lambda: saved(COLOUR, "TIFF", save_all=True, append_images=[Image.new("L", (9, 9))]), COLOUR),
    "upside down PNG": (lambda: turned(3, "PNG"), COLOUR[::-1, ::-1]),
    "mirrored WebP": (lambda: turned(2, "WEBP"), COLOUR[:, ::-1]),
    "turned TIFF": (lambda: turned(6, "TIFF"), np.rot90(COLOUR, -1)),
    "turned grey TIFF": (lambda: turned(6, "TIFF", GREY), np.rot90(grey(GREY), -1)),
    "turned 16-bit TIFF": (lambda: turned(8, "TIFF", deep(GREY)), np.rot90(grey(GREY))),
    "orientation 9": (lambda: turned(9, "PNG"), COLOUR),
    "damaged EXIF": (lambda: saved(COLOUR, "PNG", exif=b"Exif\0\0no TIFF header"), COLOUR),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_kind_of_picture_has_a_rule(tmp_path, kind):
    make, expected = PICTURES[kind]
    path = tmp_path / "picture.png"  # the contents decide, not the name
    path.write_bytes(make())
    assert np.array_equal(look(path, np.asarray), expected)


def test_photographs_lie_upright(tmp_path):
    """JPEG is lossy, so the turned picture is compared with itself, turned."""
    for orientation, turn in ((1, 0), (3, 2), (6, -1), (8, 1)):
        (tmp_path / "a.jpg").write_bytes(turned(orientation, "JPEG"))
        (tmp_path / "b.jpg").write_bytes(turned(1, "JPEG"))
        straight = look(tmp_path / "b.jpg", np.asarray)
        assert np.array_equal(look(tmp_path / "a.jpg", np.asarray), np.rot90(straight, turn))


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("float", np.linspace(0, 1, 96).reshape(8, 12).astype(np.float32)),
        ("32bit", np.arange(96).reshape(8, 12).astype(np.int32)),
    ],
)
def test_samples_without_a_range_are_refused(tmp_path, name, pixels):
    path = tmp_path / f"{name}.tif"
    path.write_bytes(saved(pixels, "TIFF"))
    with pytest.raises(ConfigError, match=f"{path} has .* samples of mode [FI], whose range is unknown"):
        read_images([path], 8, True)


def test_a_pillow_that_knows_fewer_formats_reads_the_others(tmp_path, monkeypatch):
    """Exported students go to machines with other Pillows."""
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF")
    paths = [tmp_path / f"picture.{kind}" for kind in ("png", "avif")]
    for path, kind in zip(paths, ("PNG", "AVIF"), strict=True):
        path.write_bytes(saved(COLOUR, kind))
    assert np.array_equal(look(paths[0], np.asarray), COLOUR)
    with pytest.raises(ConfigError, match=r"picture\.avif cannot be read as an image: it is none of BMP, DIB"):
        look(paths[1], np.asarray)


def test_pictures_too_large_for_memory_are_refused(tmp_path):
    path = tmp_path / "bomb.bmp"
    for width, height in ((14_000, 14_000), (1 << 30, 1 << 30), (MOST_PIXELS + 1, 1)):
        path.write_bytes(formats.bmp(width, height))
        with pytest.raises(ConfigError, match=rf"^{path} .*pixels") as caught:
            look(path, np.asarray)
        assert "\n" not in str(caught.value)
    (tmp_path / "thread.png").write_bytes(saved(np.zeros((1, 60_000), np.uint8), "PNG"))
    with pytest.raises(ConfigError, match=r"thread\.png would be 3840000x64 pixels large"):
        read_images([tmp_path / "thread.png"], 64, True)


@pytest.mark.parametrize("shape", [(40, 20), (20, 45), (21, 20)])
def test_the_middle_of_a_picture(shape):
    """Scaled to 16, of which 8 are cut out; the red spot in the middle stays in the middle."""
    height, width = shape
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2, 0] = 255
    found = np.asarray(middle(Image.fromarray(pixels), 16, 8)).astype(float)[..., 0]
    assert found.shape == (8, 8)
    rows, columns = (np.average(np.arange(8), weights=found.sum(axis)) for axis in (1, 0))
    assert abs(rows - 3.5) < 0.6 and abs(columns - 3.5) < 0.6
