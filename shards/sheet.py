"""The paper that previews are drawn on: a heading, and text and pictures at places. Arrays in, PNG out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

GAP, MARGIN, LINE, HEAD = 10, 20, 16, 44
PAPER, INK, FAINT, FRAME = "#ffffff", "#1b1f24", "#6a737d", "#d0d7de"

MAKER = "seqjepa-data preview"
SIGN = b"tEXtSoftware\0" + MAKER.encode()


class Sheet:
    """A page of width × height px. Below MARGIN + HEAD it is the caller's."""

    def __init__(self, size: tuple[int, int], title: str, about: str) -> None:
        from PIL import Image, ImageDraw

        self.image = Image.new("RGB", size, PAPER)
        self.pen: ImageDraw = ImageDraw.Draw(self.image)
        self.small, self.large = font(12), font(18)
        self.pen.text((MARGIN, MARGIN), title, INK, self.large)
        self.pen.text((size[0] - MARGIN, MARGIN + 5), about, FAINT, self.small, anchor="ra")

    def picture(self, at: tuple[int, int], pixels: np.ndarray | Image, size: tuple[int, int]) -> None:
        """Pastes uint8 [H, W, 3] in a thin frame, resized to `size` (width, height)."""
        from PIL import Image

        picture = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
        self.image.paste(picture.resize(size, Image.Resampling.BICUBIC), at)
        x, y = at
        self.pen.rectangle((x - 1, y - 1, x + size[0], y + size[1]), outline=FRAME)

    def clipped(
        self, at: tuple[int, int], text: str, width: float, colour: str, face: FreeTypeFont | ImageFont
    ) -> None:
        """Draws `text`, cut with an ellipsis where it would be wider than `width`."""
        while text and self.pen.textlength(text, face) > width:
            text = text.rstrip("…")[:-1] + "…"
        self.pen.text(at, text, colour, face)

    def png(self) -> bytes:
        """Signed in its `Software` text, by which a preview of before is known."""
        from PIL.PngImagePlugin import PngInfo

        buffer, signed = io.BytesIO(), PngInfo()
        signed.add_text("Software", MAKER)
        self.image.save(buffer, "PNG", optimize=True, pnginfo=signed)
        return buffer.getvalue()


def font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
