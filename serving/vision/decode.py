"""From untrusted bytes to upright RGB pixels of bounded size.

Nothing is decoded before its format and its size are known from the header, a JPEG is decoded at a
fraction of its size where that is enough, and what comes out holds pixels and nothing else: no
position, no camera, no name. Training decodes in the same way (`training/visual/decode.py`); a test
proves that both give equal pixels.

Belongs here: reading pictures. Does not belong here: what is cut out of them (`boxes.py`).
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

Fault = Literal["unsupported-media-type", "unreadable-picture", "too-large"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""What is taken (a phone's MPO is opened as JPEG); the fewer decoders strangers can reach, the better."""

WORKING_SIDE = 1200
"""A JPEG is decoded so that no side falls below this by it."""

LARGEST_SIDE = 3200
"""What is larger than this after decoding is made smaller at once."""

SMALLEST_SIDE = 16
WIDEST = 20
"""Longest side over shortest: beyond it nothing in the picture can be recognised."""

SCALABLE_PIXELS = 64_000_000
"""Largest JPEG by its header: its decoder gives a half, quarter or eighth of the size in a share of the memory."""

PIXELS = 32_000_000
"""Largest picture of any other format by its header, and largest progressive JPEG, which is held as a whole."""

SCANS = 64
"""Most scans of a JPEG; cameras write one, web pages about ten, and each costs a pass over the whole picture."""

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_SCAN = b"\xff\xda"
_ORIENTATION = 0x0112
_DEEP = {"I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
_SEE_THROUGH = {"RGBA", "LA", "PA", "RGBa", "La"}
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_SRGB = ImageCms.createProfile("sRGB")


class PictureError(ValueError):
    """Bytes that cannot be used as a picture.

    Args:
        fault: Kind of problem.
        message: What was found and what was expected.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = fault


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """A decoded picture.

    Attributes:
        image: RGB, upright, of bounded size.
        width: Pixels of the whole upright original.
        height: Likewise.
    """

    image: Image.Image
    width: int
    height: int

    def pixels(self) -> NDArray[np.uint8]:
        """uint8[h, w, 3]."""
        return np.asarray(self.image)


def decode(content: bytes, side: int = WORKING_SIDE) -> Photo:
    """Decode a picture.

    The first frame of an animation counts; transparency becomes white; other colour spaces and depths
    become 8-bit sRGB; the orientation that a camera noted is applied.

    Args:
        content: The file.
        side: No side falls below this by decoding smaller; 0 decodes at full size.

    Raises:
        PictureError: Not a picture, of a format that is not taken, damaged, or of an impossible size.
    """
    image = _opened(content)
    width, height = image.size
    scalable = image.format in {"JPEG", "MPO"}
    if scalable and content.count(_SCAN) > SCANS:
        raise PictureError("unreadable-picture", f"the JPEG has more than {SCANS} scans; expected a photo")
    held = image.info.get("progressive") or not scalable
    _check_size(width, height, PIXELS if held else SCALABLE_PIXELS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if side and scalable:
                image.draft(image.mode, (side, side))
            image.load()
            orientation, profile = _orientation(image), image.info.get("icc_profile")
            picture = _in_srgb(_rgb(_smaller(image)), profile)
    except (MemoryError, Image.DecompressionBombError) as error:
        raise PictureError("too-large", "the picture is too large to be decoded") from error
    except Exception as error:
        raise _damaged() from error
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    elif isinstance(picture, ImageFile.ImageFile):
        picture = picture.copy()
    picture.info = {}  # What the camera wrote beside the pixels ends here.
    if orientation >= 5:
        width, height = height, width
    return Photo(picture, width, height)


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise PictureError("unreadable-picture", "the body is empty; expected the bytes of a picture")
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC:
        raise PictureError(
            "unsupported-media-type",
            "the picture is HEIC, for which this server has no decoder; expected JPEG, PNG, WebP or GIF",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning on bombs: the limit here is lower.
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(
            "too-large", f"the picture is too large; expected at most {SCALABLE_PIXELS:,} pixels"
        ) from error
    except Exception as error:  # Pillow's plugins raise whatever zlib, struct and the C decoders raise.
        if content.startswith(_BEGINNINGS) or content[8:12] == b"WEBP":
            raise _damaged() from error
        raise PictureError(
            "unsupported-media-type", "the body is not a picture; expected JPEG, PNG, WebP or GIF"
        ) from error


def _damaged() -> PictureError:
    return PictureError("unreadable-picture", "the picture is damaged or incomplete; expected a whole file")


def _check_size(width: int, height: int, limit: int) -> None:
    found = f"the picture has {width:,} x {height:,} pixels"
    if width * height > limit:
        raise PictureError("too-large", f"{found}; expected at most {limit:,} in all")
    if min(width, height) < SMALLEST_SIDE:
        raise PictureError(
            "unreadable-picture", f"{found}; expected at least {SMALLEST_SIDE} on the shorter side"
        )
    if max(width, height) > WIDEST * min(width, height):
        raise PictureError(
            "unreadable-picture", f"{found}; expected one side at most {WIDEST} times the other"
        )


def _orientation(image: Image.Image) -> int:
    """How the camera was held, 1 to 8 as EXIF counts; notes that cannot be read count as upright."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Damaged notes.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _smaller(image: Image.Image) -> Image.Image:
    """At most `LARGEST_SIDE` on the longer side, by whole steps: cheap, and smoothed."""
    steps = -(-max(image.size) // LARGEST_SIDE)
    if steps <= 1:
        return image
    if image.mode in {"P", "PA", "1"}:
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    return _eight_bits(image).reduce(steps) if image.mode in _DEEP else image.reduce(steps)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _DEEP:
        return _eight_bits(image).convert("RGB")
    if image.mode in _SEE_THROUGH or "transparency" in image.info:
        seen = image.convert("RGBA")
        ground = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, seen).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    scale = 255.0 / 65535.0 if float(values.max(initial=0.0)) > 255 else 1.0
    return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8))


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """In sRGB, where the file says that it is in another space; a profile that cannot be read counts as none."""
    if not isinstance(profile, bytes) or b"sRGB" in profile[:4096]:
        return image
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space.strip() != "RGB":
            return image
        made = ImageCms.profileToProfile(image, given, _SRGB, renderingIntent=_INTENT)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if made is None else made
