"""How a picture becomes the input of a network: the same for training, evaluation and a student that has left the house.

This file goes with every exported student, imports nothing of this package, and needs Pillow 10.1 or newer.

    what is read     what Pillow takes it for by its contents, of the FORMATS below that this Pillow knows
    more than 8 bit  grey of 16 bits (of 12 in a TIFF) is scaled to 0..255 by its high bits, as Pillow does with colour
    no known range   float, signed and 32-bit samples are refused
    orientation      the EXIF tag is obeyed, and where it cannot be read, there is none
    transparency     on white
    palette, CMYK    to RGB by Pillow's formula; colour profiles are ignored
    several frames   the first
    large            at most MOST_PIXELS, as they lie and scaled

Then the shorter side is scaled to `resize`, bilinearly, and the middle of `size` x `size` is cut out.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 178_956_970  # Pillow's own limit
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of a TIFF
WHITE_IS_ZERO, UNSIGNED, UNDEFINED = 0, 1, 4
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Of pixels that are not there Pillow raises an error; warnings are about what is not used, a page for every process.
warnings.filterwarnings("ignore", module=r"PIL\.")

Path = str | os.PathLike


class Unreadable(ValueError):
    """A file that gives no picture; the message is one line that names it."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever a file brings about in here is Unreadable, in one line that begins with its name."""
    try:
        yield
    except Unreadable as error:
        raise Unreadable(f"{path} {error}") from error
    except UnidentifiedImageError as error:
        raise Unreadable(f"{path} cannot be read as an image: it is none of {', '.join(known_formats())}") from error
    except Exception as error:  # whatever a decoder makes of somebody's file
        said = " ".join((str(error) or type(error).__name__).split())
        raise Unreadable(f"{path} cannot be read as an image: {said}") from error


def decode(path: Path) -> Image.Image:
    """A picture in RGB, upright, by the rules above. Raises Unreadable and whatever else; see `naming`."""
    # Not by its name: Pillow would map grey TIFF into memory, and mix up the pixels of those that lie on their side.
    with open(path, "rb") as stream, Image.open(stream, formats=known_formats()) as file:  # noqa: PTH123  a string, or any path
        check_pixels(*file.size)
        file.load()
        turn = TURNS.get(orientation(file))
        image = on_white(in_eight_bits(file))
    return image if turn is None else image.transpose(turn)


def known_formats() -> list[str]:
    """Those of the FORMATS that this Pillow knows: AVIF from 11.3 on."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def check_pixels(width: int, height: int) -> None:
    """Raise Unreadable for more pixels than any picture has, before there is memory for them."""
    if width * height > MOST_PIXELS:
        raise Unreadable(
            f"would be {width}x{height} pixels large, more than {MOST_PIXELS / 1e6:.0f} million: scale it down"
        )


def orientation(file: Image.Image) -> int | None:
    try:
        return file.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001  a picture is whole without its EXIF data
        return None


def in_eight_bits(file: Image.Image) -> Image.Image:
    """An image as it is, or grey of more bits scaled to eight."""
    tags = getattr(file, "tag_v2", {})
    unsigned = set(tags.get(SAMPLE_FORMAT, ())) <= {UNSIGNED, UNDEFINED}
    # PNG: of 16 bits, before Pillow 11.
    deep = file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM"))
    if not unsigned or file.mode == "F" or (file.mode == "I" and not deep):
        kind = "samples" if unsigned else "signed or float samples"
        raise Unreadable(
            f"has {kind} of mode {file.mode}, whose range is unknown: save it in 8 or 16 bits without a sign"
        )
    if not deep:
        return file
    bits = 12 if tags.get(BITS) == (12,) else 16
    values = np.asarray(file)
    levels = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # which Pillow sees to with 8 bits only
        levels = 255 - levels
    levels[values == file.info.get("transparency", -1)] = 255
    return Image.fromarray(levels)


def on_white(image: Image.Image) -> Image.Image:
    """In RGB, what shines through is white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert({"La": "LA"}.get(image.mode, "RGBA")).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def middle(image: Image.Image, resize: int, size: int) -> Image.Image:
    """The shorter side scaled to `resize`, then the middle of size x size, at most that. Raises Unreadable."""
    scale = resize / min(image.size)
    width, height = (max(resize, round(side * scale)) for side in image.size)
    check_pixels(width, height)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


def prepare(path: Path, about: Mapping[str, str]) -> np.ndarray:
    """A picture as a batch [1, channels, size, size] of float32 in [0, 1]. about: an exported student's metadata.

    Raises Unreadable.
    """
    with naming(path):
        image = middle(decode(path), int(about["resize"]), int(about["size"]))
    pixels = np.asarray(image.convert("L" if about["channels"] == "1" else "RGB"), np.float32) / 255
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)[None]
