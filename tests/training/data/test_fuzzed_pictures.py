"""Pictures of every format, damaged at random: each is still a picture, or one line that names it.

With -s a table. HARNESS_FUZZ=N: N damages of every file.
"""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.config import ConfigError
from harness.training.data.images import look
from harness.training.data.preparation import FORMATS, middle
from tests.damage import MANY

FEW = 130  # damages of each file
DRAW = np.random.default_rng(0)
COLOUR = Image.fromarray(DRAW.integers(0, 256, (24, 20, 3), dtype=np.uint8))
GREY = COLOUR.convert("L")
DEEP = Image.fromarray(DRAW.integers(0, 65536, (24, 20), dtype=np.uint16))
CLEAR = Image.fromarray(DRAW.integers(0, 256, (24, 20, 4), dtype=np.uint8))
EXIF = Image.Exif()
EXIF.update({0x112: 6, 0x10E: "a picture"})


def frames(image: Image.Image) -> dict[str, object]:
    return {"save_all": True, "append_images": [image.rotate(180)] * 2}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def whole() -> dict[str, bytes]:
    """A file of every format and of most of what may be in it."""
    pixels = np.asarray(COLOUR)
    made = {
        "AVIF": [(COLOUR, {}), (CLEAR, frames(CLEAR))],
        "BMP": [(COLOUR, {}), (GREY, {}), (COLOUR.convert("P"), {}), (CLEAR, {})],
        "DIB": [(COLOUR, {})],
        "GIF": [(COLOUR, {}), (GREY, {"transparency": 3}), (COLOUR, frames(COLOUR))],
        "JPEG": [
            (COLOUR, {"exif": EXIF, "comment": b"a picture"}),
            (GREY, {"progressive": True}),
            (COLOUR.convert("CMYK"), {"icc_profile": bytes(300)}),
        ],
        "JPEG2000": [(COLOUR, {}), (DEEP, {}), (CLEAR, {"irreversible": True})],
        "MPO": [(COLOUR, frames(COLOUR))],
        "PNG": [
            (DEEP, {"transparency": 7}),
            (COLOUR.convert("P"), {"transparency": bytes(range(9))}),
            (CLEAR, {"exif": EXIF, "icc_profile": bytes(300)}),
            (COLOUR, {**frames(COLOUR), "dpi": (72, 72)}),
            (GREY.convert("1"), {}),
        ],
        "PPM": [(COLOUR, {}), (GREY, {}), (DEEP, {}), (GREY.convert("1"), {})],
        "TIFF": [
            *((COLOUR, {"compression": kind}) for kind in (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
            (DEEP, {"exif": EXIF}),
            (GREY.convert("1"), {"compression": "group4"}),
            (COLOUR.convert("CMYK"), {}),
            (CLEAR, frames(CLEAR)),
        ],
        "WEBP": [(COLOUR, {"exif": EXIF}), (CLEAR, {"lossless": True}), (COLOUR, frames(COLOUR))],
    }
    files = {
        f"{kind} {number}": saved(image, kind, **options)
        for kind, pictures in made.items()
        for number, (image, options) in enumerate(pictures)
    }
    plain = " ".join(map(str, pixels.ravel())).encode()
    return files | {"PPM in words": b"P3 20 24 255\n" + plain, "PGM of 10 bits": b"P5 8 24 1000\n" + bytes(384)}


FILES = whole()
WORTH = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\0\0\1")


def flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def overwrite(content: bytearray, draw: random.Random) -> None:
    """A field that has another value; most of them lie at the beginning."""
    value, place = draw.choice(WORTH), draw.randrange(min(len(content), draw.choice((64, 400, 10**9))))
    content[place : place + len(value)] = value


def cut(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def lose(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    del content[start : start + draw.choice((1, 2, 4, 40))]


def insert(content: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(content))
    content[place:place] = draw.randbytes(draw.choice((1, 2, 4, 40)))


def repeat(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    part = content[start : start + draw.choice((4, 40, 400))]
    content[start:start] = part * draw.choice((1, 5))


def graft(content: bytearray, draw: random.Random) -> None:
    """The end of another file."""
    other = draw.choice(list(FILES.values()))
    content[draw.randrange(len(content)) :] = other[draw.randrange(len(other)) :]


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(flip, flip, overwrite, overwrite),
    *(cut, lose, insert, repeat, graft),
)


def outcome(path: Path) -> str:
    """What becomes of a file. Raises what it must not."""
    try:
        pixels = look(path, lambda image: np.asarray(middle(image, 9, 8)))
    except ConfigError as error:
        assert str(error).startswith(f"{path} ") and "\n" not in str(error), error
        return "a line"
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    return "a picture"


def test_every_format_is_damaged():
    assert {Image.open(io.BytesIO(content)).format for content in FILES.values()} == {*FORMATS, "MPO"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_damaged_pictures_are_pictures_or_one_line(tmp_path, name):
    path, draw, found = tmp_path / "picture", random.Random(name), Counter()
    path.write_bytes(FILES[name])
    assert outcome(path) == "a picture"
    for _ in range(MANY or FEW):
        content = bytearray(FILES[name])
        for _ in range(draw.choice((1, 1, 2))):
            if content:
                draw.choice(DAMAGES)(content, draw)
        path.write_bytes(content)
        found[outcome(path)] += 1
    print(f"{name:14} {found.total():6} damaged: {found['a line']:6} refused, {found['a picture']:6} read")
