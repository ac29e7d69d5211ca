"""From the bytes of a picture to upright sRGB pixels, and from pixels to what the models see.

The server decodes in the same way (`serving/vision/decode.py`); a test proves that both give equal pixels.

Belongs here: limits, orientation, colour, transparency, squares. Does not belong here: where pictures come from.
"""

from __future__ import annotations

import dataclasses
import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from contracts.visual import GREY

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is read (a phone's MPO is opened as JPEG); Pillow guesses nothing else."""

_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


class PictureError(ValueError):
    """Bytes that cannot be used as a picture; the message says what they are and what was expected.

    Attributes:
        reason: One word for counting.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is refused before it costs memory.

    Attributes:
        bytes: Largest file.
        pixels: Largest width times height.
        least_side: Smallest width and height.
        longest_ratio: Largest ratio of the sides.
    """

    bytes: int = 20 * 1024 * 1024
    pixels: int = 50_000_000
    least_side: int = 16
    longest_ratio: float = 20.0


LIMITS = Limits()


def decode(raw: bytes, side: int = 0, limits: Limits = LIMITS) -> Image.Image:
    """Upright RGB picture in sRGB.

    The first frame counts of what moves, the ground is white behind what is transparent, 16 bits become 8.

    Args:
        raw: The file.
        side: If given, a JPEG may be decoded smaller than it is, but with no side below this (fast).
        limits: What is refused.

    Raises:
        PictureError: Naming what is wrong.
    """
    image = _open(raw, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if side and image.format in ("JPEG", "MPO"):
                image.draft(image.mode, (side, side))
            image.load()
            profile = image.info.get("icc_profile")
            picture = _in_srgb(_rgb(_upright(image)), profile)
            picture.info = {}  # What the camera wrote beside the pixels ends here.
            return picture
    except PictureError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever struct, zlib and the C decoders raise.
        raise PictureError(
            "damaged", f"the picture is damaged ({error}); expected a complete file"
        ) from error


def size_of(raw: bytes, limits: Limits = LIMITS) -> tuple[int, int]:
    """Width and height as stored (before orientation), without decoding.

    Raises:
        PictureError: Naming what is wrong.
    """
    return _open(raw, limits).size


def letterbox(image: Image.Image, size: int) -> tuple[Pixels, float]:
    """A picture scaled to fit a square, top left on grey: what the detector sees.

    Returns:
        ``uint8[size, size, 3]`` and the scale: a box in pixels of the square over the scale is in those of the
        picture.
    """
    scale = size / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    square = np.full((size, size, 3), GREY, np.uint8)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    square[:height, :width] = np.asarray(scaled)
    return square, scale


def crop(
    image: Image.Image, box: Box | None, size: int, margin: float = 0.0, keep_shape: bool = False
) -> Pixels:
    """What the embedder sees of an item.

    Args:
        image: The picture.
        box: Left, top, right, bottom as shares of the picture, or None for all of it (then without margin).
        size: Side of the square.
        margin: Share of the box's width and height added on each side, within the picture.
        keep_shape: Scale to fit, top left on grey, instead of stretching to the square.

    Returns:
        ``uint8[size, size, 3]``.
    """
    wide, high = image.size
    left, top, right, bottom = (0.0, 0.0, 1.0, 1.0) if box is None else box
    dx, dy = (0.0, 0.0) if box is None else (margin * (right - left), margin * (bottom - top))
    left, top = min(max(0.0, left - dx) * wide, wide - 1.0), min(max(0.0, top - dy) * high, high - 1.0)
    right, bottom = min(1.0, right + dx) * wide, min(1.0, bottom + dy) * high
    area = (left, top, max(right, left + 1.0), max(bottom, top + 1.0))
    if not keep_shape:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, area, 2.0))
    scale = size / max(area[2] - area[0], area[3] - area[1])
    width, height = (max(1, round(side * scale)) for side in (area[2] - area[0], area[3] - area[1]))
    square = np.full((size, size, 3), GREY, np.uint8)
    square[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, area, 2.0))
    return square


def _open(raw: bytes, limits: Limits) -> Image.Image:
    if not raw:
        raise PictureError("empty", "the file is empty; expected a picture")
    if len(raw) > limits.bytes:
        raise PictureError(
            "too many bytes", f"the file has {len(raw):,} bytes; expected at most {limits.bytes:,}"
        )
    if raw[4:8] == b"ftyp" and raw[8:12] in _HEIF:
        raise PictureError("heic", "the file is HEIC, which is not read here; expected JPEG, PNG or WebP")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning on bombs: the limit below is ours.
            image: Image.Image = Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(
            "too many pixels", f"the picture is too large; expected at most {limits.pixels:,} pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(
            "not a picture", "the file is no picture that is read here; expected JPEG, PNG or WebP"
        ) from error
    except Exception as error:
        raise PictureError(
            "damaged", f"the picture is damaged ({error}); expected a complete file"
        ) from error
    width, height = image.size
    if width * height > limits.pixels:
        raise PictureError(
            "too many pixels",
            f"the picture has {width:,} x {height:,} pixels; expected at most {limits.pixels:,} in all",
        )
    if min(width, height) < limits.least_side:
        raise PictureError(
            "too small",
            f"the picture has {width:,} x {height:,} pixels; expected at least {limits.least_side} a side",
        )
    if max(width, height) > limits.longest_ratio * min(width, height):
        raise PictureError(
            "too long",
            f"the picture has {width:,} x {height:,} pixels; "
            f"expected one side at most {limits.longest_ratio:g} times the other",
        )
    return image


def _upright(image: Image.Image) -> Image.Image:
    """As the camera was held; notes that cannot be read count as upright."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises several unrelated types on damaged notes.
        return image


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float32))
        scale = 255.0 / 65535.0 if float(values.max(initial=0.0)) > 255 else 1.0
        return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, (255, 255, 255, 255)), seen).convert("RGB")
    return image.convert("RGB")


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """RGB in sRGB where the file says that it is in another space; a profile that cannot be used is as good as none."""
    if not isinstance(profile, bytes) or b"sRGB" in profile[:4096]:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != "RGB":
            return image
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        target = ImageCms.createProfile("sRGB")
        made = ImageCms.profileToProfile(image, source, target, renderingIntent=intent)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if made is None else made
