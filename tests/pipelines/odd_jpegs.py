"""JPEGs that cameras, phones and broken programs write, made byte by byte from sound ones."""

from __future__ import annotations

import io
import re

import cv2
import numpy as np
from PIL import Image
from small_images import picture

END = b"\xff\xd9"


def jpeg(seed: int = 1, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, 48, 64)).convert(mode).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def sampled(factor: int) -> bytes:
    """By OpenCV, which offers more samplings of colour than PIL."""
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    return cv2.imencode(".jpg", picture(2, 48, 64), options)[1].tobytes()


def segment(data: bytes, marker: int) -> int:
    """Where the first segment of this marker begins."""
    at = 2
    while data[at + 1] != marker:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def scan(data: bytes) -> int:
    """Where the entropy-coded data of the first scan begins."""
    at = segment(data, 0xDA)
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def inserted(data: bytes, at: int, more: bytes) -> bytes:
    return data[:at] + more + data[at:]


def nth(data: bytes, marker: bytes, n: int = 0) -> int:
    return [found.start() for found in re.finditer(re.escape(marker), data)][n]


def bad_scan(data: bytes) -> bytes:
    """Ss..Se = 0..0, as Samsung's phones write it."""
    return changed(data, scan(data) - 2, 0)


def noise(count: int, seed: int = 0) -> bytes:
    """Without 0xFF, which begins a marker."""
    return np.random.default_rng(seed).integers(0, 255, count, dtype=np.uint8).tobytes()


def flat(horizontal: int) -> bytes:
    """48×8 pixels of one grey, three colours, `horizontal` blocks of brightness to one of each other: 3 is a sampling
    that few programs know. In the standard's Huffman tables 110 begins five bits of DC, 1010 and 00 end a block."""
    whole = jpeg(subsampling=0)
    blocks = ["110" + "10110" + "1010"] + ["00" + "1010"] * (horizontal - 1) + ["00" + "00"] * 2
    units = 48 // (8 * horizontal)
    bits = "".join(blocks) + ("".join(["001010"] * horizontal) + "0000" * 2) * (units - 1)
    bits += "1" * (-len(bits) % 8)
    frame, begin = segment(whole, 0xC0), scan(whole)
    head = bytearray(whole[:begin])
    head[frame + 5 : frame + 9] = (8).to_bytes(2, "big") + (48).to_bytes(2, "big")
    head[frame + 11] = horizontal << 4 | 1
    return bytes(head) + int(bits, 2).to_bytes(len(bits) // 8, "big") + END


PLAIN, RESTARTS, PROGRESSIVE = jpeg(), jpeg(restart_marker_blocks=2), jpeg(progressive=True)
CMYK = jpeg(mode="CMYK")
JFIF, ADOBE = segment(PLAIN, 0xE0), segment(CMYK, 0xEE)
FIRST_SCAN, FRAME = segment(PLAIN, 0xDA), segment(PLAIN, 0xC0)

READ = {
    "plain": PLAIN,
    "progressive": PROGRESSIVE,
    "restart marks": RESTARTS,
    "grey": jpeg(mode="L"),
    "CMYK": CMYK,
    "RGB, Adobe": jpeg(keep_rgb=True),
    "4:1:1": sampled(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "4:4:0": sampled(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "3:1:1": flat(3),
    "scan parameters": bad_scan(PLAIN),
    "scan parameters, grey": bad_scan(jpeg(mode="L")),
    "scan parameters, CMYK": bad_scan(CMYK),
    "scan parameters and bytes left over": inserted(bad_scan(PLAIN), -2, b"abc" * 40),
    "JFIF 9": changed(PLAIN, JFIF + 9, 9),
    "Adobe's transform 9": changed(CMYK, ADOBE + 15, 9),
    "Adobe's transform 1 of CMYK": changed(CMYK, ADOBE + 15, 1),
    "Adobe's transform 2 of three colours": PLAIN[:JFIF] + b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\2" + PLAIN[JFIF + 18 :],
    "bytes between segments": inserted(PLAIN, FIRST_SCAN, b"abc"),
    "fill bytes": inserted(PLAIN, FIRST_SCAN, b"\xff" * 5),
    "fill bytes before the end": inserted(PLAIN, -2, b"\xff" * 5),
    "zeros before the end": inserted(PLAIN, -2, bytes(5000)),
    "seven bytes before the end": inserted(PLAIN, -2, bytes(7)),
    "many bytes before the end": inserted(PLAIN, -2, noise(500)),
    "bytes before a restart mark": inserted(RESTARTS, nth(RESTARTS, b"\xff\xd3"), b"abcdefghijkl"),
    "zeros before a restart mark": inserted(RESTARTS, nth(RESTARTS, b"\xff\xd3"), bytes(40)),
    "bytes before every restart mark": RESTARTS[: scan(RESTARTS)]
    + re.sub(rb"(\xff[\xd0-\xd7])", rb"qwertyuiopas\1", RESTARTS[scan(RESTARTS) :]),
    "bytes between scans": inserted(PROGRESSIVE, nth(PROGRESSIVE, b"\xff\xc4", 4), noise(100)),
    "a scan too few": PROGRESSIVE[: nth(PROGRESSIVE, b"\xff\xc4", 2)] + PROGRESSIVE[nth(PROGRESSIVE, b"\xff\xc4", 3) :],
    "the standard's tables left out, as in MJPEG": PLAIN[: segment(PLAIN, 0xC4)] + PLAIN[FIRST_SCAN:],
    "two end marks": PLAIN + END,
    "text behind the end": PLAIN + b"and more" * 50,
    "another JPEG behind the end": PLAIN + jpeg(2),
    "all together": inserted(inserted(changed(bad_scan(PLAIN), JFIF + 9, 9), FIRST_SCAN, b"\1\2\3"), -2, noise(200, 1)),
}
LOST = {
    "half": PLAIN[: len(PLAIN) // 2],
    "no end mark": PLAIN[:-2],
    "half, with an end mark": PLAIN[: scan(PLAIN) + 300] + END,
    "half, CMYK": CMYK[: scan(CMYK) + 300] + END,
    "half, and scan parameters": bad_scan(PLAIN)[: scan(PLAIN) + 300] + END,
    "half, and JFIF 9": changed(PLAIN, JFIF + 9, 9)[: scan(PLAIN) + 300] + END,
    "half, and bytes between segments": inserted(PLAIN[: scan(PLAIN) + 300] + END, FIRST_SCAN, b"abc"),
    "an interval half gone": RESTARTS[: nth(RESTARTS, b"\xff\xd3") - 20] + RESTARTS[nth(RESTARTS, b"\xff\xd3") :],
    "an interval gone, bytes before all others": inserted(
        RESTARTS[: nth(RESTARTS, b"\xff\xd4") - 20] + RESTARTS[nth(RESTARTS, b"\xff\xd4") :],
        nth(RESTARTS, b"\xff\xd1"),
        b"abcdefghijkl",
    ),
    "a restart mark gone": RESTARTS[: nth(RESTARTS, b"\xff\xd3")] + RESTARTS[nth(RESTARTS, b"\xff\xd3") + 2 :],
    "noise before a restart mark": inserted(RESTARTS, nth(RESTARTS, b"\xff\xd3"), noise(60)),
    "a scan cut": inserted(PROGRESSIVE[:-60] + END, nth(PROGRESSIVE, b"\xff\xc4", 4), noise(100)),
    "twelve bits": changed(PLAIN, FRAME + 4, 12),
    "no height (DNL)": changed(changed(PLAIN, FRAME + 5, 0), FRAME + 6, 0),
    "no frame": PLAIN[:FRAME] + PLAIN[segment(PLAIN, 0xC4) :],
    "nothing but a beginning": b"\xff\xd8" + END,
}
