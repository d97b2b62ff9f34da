"""Frames of videos: the right one by number and time, the right colours, and never fewer than there are."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_videos import av, number_of, picture, write_video

from pipelines.build.encode import Frame
from pipelines.sources import video as video_module
from pipelines.sources.video import VideoIndex, index_video, pyav
from shards.errors import FormatError, UsageError

BT601, BT709, LIMITED, FULL = 5, 1, 1, 2  # ITU-T H.273 and FFmpeg's AVColorRange
WEIGHTS = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722)}  # of red and blue in luma: ITU-R BT.601, BT.709


def numbers(index: VideoIndex, asked: list[int] | None = None) -> list[int]:
    frames = index.frames(np.array(range(len(index)) if asked is None else asked))
    return [number_of(pixels) for pixels in frames.load()]


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", ".mp4", {"g": 12, "bf": 3}),  # B-frames: stored in another order than shown
        ("libx264", ".mkv", {"g": 12, "bf": 3}),
        ("libx264", ".mp4", {"g": 12, "bf": 3, "x264_params": "open-gop=1"}),
        ("libx264", ".mp4", {"x264_params": "intra-refresh=1:keyint=12"}),  # no whole keyframe but the first
        ("libx264", ".mov", {"g": 2}),
        ("libx265", ".mp4", {"g": 12}),
        ("libsvtav1", ".mp4", {"g": 2}),
        ("libvpx-vp9", ".webm", {"g": 12}),
        ("libvpx", ".webm", {"g": 12, "auto_alt_ref": 1, "lag_in_frames": 10}),  # frames that are never shown
    ],
)
def test_every_frame_is_the_one_that_was_asked_for(
    codec: str, suffix: str, options: dict[str, Any], tmp_path: Path
) -> None:
    index = index_video(write_video(tmp_path / f"clip{suffix}", 40, codec=codec, **options))
    assert numbers(index) == list(range(40))
    assert numbers(index, [30, 31, 5, 5, 39, 0, 13]) == [30, 31, 5, 5, 39, 0, 13]
    np.testing.assert_allclose(index.seconds(np.arange(40)), np.arange(40) / 25, atol=1e-9)
    assert index.nearest(np.array([0.0, 0.041, 1.56, 99.0, -1.0])).tolist() == [0, 1, 39, 39, 0]


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="scheduling policies are Linux's")
def test_clips_are_made_without_a_real_time_process(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 4, codec="libsvtav1")
    assert {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")} == {os.SCHED_OTHER}


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libx264", ".mkv"), ("libsvtav1", ".mp4")])
def test_decoding_starts_at_the_keyframe_and_not_before(codec: str, suffix: str, tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / f"clip{suffix}", 40, codec=codec, g=8))
    assert len(index.keys) > 3
    reader = video_module._Reader(index.video)
    for key in index.keys.tolist():
        reader._start(key)
        assert next(reader.frames).pts == key


def test_frames_that_follow_each_other_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_video(write_video(tmp_path / "clip.mp4", 40))
    opened, real = [], video_module._opened
    monkeypatch.setattr(video_module, "_opened", lambda path: opened.append(path) or real(path))
    seen = [number_of(p) for k in range(0, 40, 8) for p in index.frames(np.arange(k, k + 8)).load()]
    assert seen == list(range(40))
    assert len(opened) == 1


def test_variable_frame_rate_and_a_start_that_is_not_zero(tmp_path: Path) -> None:
    times = [90, 93, 100, 101, 150, 151, 152, 400]
    path = write_video(tmp_path / "clip.mkv", 8, times=times, time_base=Fraction(1, 1000), codec="ffv1")
    index = index_video(path)
    np.testing.assert_allclose(index.seconds(np.arange(8)), np.array(times) / 1000)
    assert index.nearest(np.array([0.09, 0.1008, 0.1512])).tolist() == [0, 3, 5]
    assert numbers(index, [0, 3, 5, 7]) == [0, 3, 5, 7]


def test_an_edit_list_leaves_frames_out(tmp_path: Path) -> None:
    """What is before the edit is decoded, for others need it, and is neither shown nor counted."""
    path = write_video(tmp_path / "clip.mp4", 40, g=40, bf=0, container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    assert int.from_bytes(data[at + 4 : at + 8], "big") == 1, "one edit"
    duration = int.from_bytes(data[at + 8 : at + 12], "big")
    data[at + 8 : at + 12] = (duration - 400).to_bytes(4, "big")  # in ms: ten frames less
    data[at + 12 : at + 16] = (10 * 512).to_bytes(4, "big")  # begins at the tenth
    path.write_bytes(data)
    index = index_video(path)
    assert numbers(index) == list(range(10, 40))
    np.testing.assert_allclose(index.seconds(np.arange(30)), np.arange(30) / 25, atol=1e-9)


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_turned_videos_are_shown_upright(rotation: int, turns: int, tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "clip.mp4", 3, rotation=rotation, codec="libx264", qp=0))
    plain = index_video(write_video(tmp_path / "plain.mp4", 3, codec="libx264", qp=0))
    (shown,), (stored,) = (list(i.frames(np.array([2])).load()) for i in (index, plain))
    np.testing.assert_array_equal(shown, np.rot90(stored, turns))
    assert (index.video.height, index.video.width) == shown.shape[:2]


@pytest.mark.parametrize("matrix", [BT601, BT709])
@pytest.mark.parametrize("range_", [LIMITED, FULL])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p", "yuv420p10le"])
def test_colours(matrix: int, range_: int, pix_fmt: str, tmp_path: Path) -> None:
    """Planes of known luma and chroma, stored without loss, against the standards' own arithmetic."""
    bits = 10 if pix_fmt.endswith("10le") else 8
    pixels = np.zeros((32, 64, 3))
    for k, colour in enumerate([(200, 30, 40), (20, 180, 60), (40, 50, 220), (128, 128, 128)]):
        pixels[:, 16 * k : 16 * k + 16] = colour
    path = write_planes(tmp_path / "clip.mkv", pixels, matrix, range_, pix_fmt, bits)
    (found,) = index_video(path).frames(np.array([0])).load()
    for k in range(4):  # inside each stripe: at its edges chroma is interpolated
        np.testing.assert_allclose(found[8, 16 * k + 8], pixels[8, 16 * k + 8], atol=2, err_msg=f"stripe {k}")
    (small,) = index_video(path).frames(np.array([0])).load(Frame(16, 16, "crop"))
    for k in (0, 1):  # columns 16 to 48 of 64: the second and the third stripe
        np.testing.assert_allclose(small[8, 8 * k + 4], pixels[8, 16 * k + 24], atol=2, err_msg=f"cropped, {k}")
    (wide,) = index_video(path).frames(np.array([0])).load(Frame(16, 32, "crop"))  # by the same decoder: all of it
    np.testing.assert_allclose(wide[8, 4::8], found[8, 8::16], atol=2)


def write_planes(path: Path, rgb: np.ndarray, matrix: int, range_: int, pix_fmt: str, bits: int) -> Path:
    red, blue = WEIGHTS[matrix]
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    cb, cr = (rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)
    high = (1 << bits) - 1
    zero, middle = (0, (high + 1) / 2) if range_ == FULL else (16 << bits - 8, 128 << bits - 8)
    black_white, chroma = (high, high) if range_ == FULL else (219 << bits - 8, 224 << bits - 8)
    planes = [zero + luma / 255 * black_white, middle + cb / 255 * chroma, middle + cr / 255 * chroma]
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        step = rgb.shape[0] // plane.height
        rows = np.zeros((plane.height, plane.line_size // (1 + (bits > 8))), np.uint16 if bits > 8 else np.uint8)
        rows[:, : plane.width] = values[::step, ::step].round()
        plane.update(rows)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = rgb.shape[0], rgb.shape[1], pix_fmt
        stream.color_range, stream.colorspace = range_, matrix
        frame.colorspace, frame.color_range = matrix, range_
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def test_a_smaller_size_is_pils_bilinear(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((320, 180), Image.Resampling.BICUBIC))
    index = index_video(write_video(tmp_path / "clip.mkv", [pixels], codec="ffv1", pix_fmt="yuv444p"))
    (full,) = index.frames(np.array([0])).load()
    assert np.abs(full.astype(int) - pixels).max() <= 3
    for frame, most in ((Frame(64, 64, "squash"), 2), (Frame(48, 48, "crop"), 2)):
        (small,) = index.frames(np.array([0])).load(frame)
        assert small.shape == (frame.height, frame.width, 3)
        assert np.abs(small.astype(int) - frame.resample(full)).max() <= most, frame


def test_odd_sizes(tmp_path: Path) -> None:
    pictures = [picture(k, 71, 145) for k in range(3)]
    index = index_video(write_video(tmp_path / "clip.mkv", pictures, codec="ffv1", pix_fmt="yuv420p"))
    assert (index.video.height, index.video.width) == (71, 145)
    assert [p.shape for p in index.frames(np.arange(3)).load()] == [(71, 145, 3)] * 3
    assert numbers(index) == [0, 1, 2]


@pytest.mark.parametrize("name", ["clip.mp4", "fast.mp4", "clip.mkv", "clip.webm", "parts.mp4"])
def test_a_cut_file_is_an_error(name: str, tmp_path: Path) -> None:
    container = {"fast.mp4": {"movflags": "faststart"}, "parts.mp4": {"movflags": "frag_keyframe+empty_moov"}}.get(name)
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = write_video(tmp_path / name, 40, container=container, codec=codec, g=10)
    whole = path.read_bytes()
    assert len(index_video(path)) == 40
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FormatError, match=f"{name}: (it is cut|not an? )"):
            index_video(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(FormatError, match=name):
        index_video(path)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("libx264", ".mp4"), ("libx264", ".mkv"), ("libsvtav1", ".mp4"), ("libx265", ".mp4"), ("libvpx-vp9", ".webm")],
)
def test_damaged_frames_are_an_error_and_never_fewer(codec: str, suffix: str, tmp_path: Path) -> None:
    """A packet of zeros, as a hole in a file leaves it, is always found. Of random bytes a decoder may make a picture:
    these codecs have no checksums."""
    rng = np.random.default_rng(0)
    noisy = [(picture(k) + rng.integers(0, 20, (64, 144, 1))).astype(np.uint8) for k in range(30)]
    path = write_video(tmp_path / f"clip{suffix}", noisy, codec=codec, g=30)
    with av.open(str(path)) as file:
        places = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    whole = path.read_bytes()
    for at, size in places[2:28:5]:
        path.write_bytes(whole[:at] + bytes(size + 8) + whole[at + size + 8 :])
        with pytest.raises((FormatError, ValueError), match="damaged"):
            list(index_video(path).frames(np.arange(30)).load())
        path.write_bytes(whole[: at + size // 3] + rng.bytes(size - size // 3) + whole[at + size :])
        with contextlib.suppress(FormatError, ValueError):
            assert len(list(index_video(path).frames(np.arange(30)).load())) == 30


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    cases = {"text.mp4": b"hello, this is not a video", "empty.mkv": b"", "list.mp4": b"#EXTM3U\nfile:///etc/passwd\n"}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=name):
            index_video(tmp_path / name)
    (tmp_path / "folder.mp4").mkdir()
    for name in ("folder.mp4", "missing.mp4"):
        with pytest.raises(FormatError, match=name):
            index_video(tmp_path / name)
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(FormatError, match=r"sound\.mp4: it has no video"):
        index_video(tmp_path / "sound.mp4")


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    buffer = io.BytesIO()
    Image.fromarray(picture(3)).save(buffer, "JPEG")
    with av.open(str(path), "w") as file:
        cover = file.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 64, 144, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = file.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 144, "yuv420p"
        packet = av.Packet(buffer.getvalue())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        file.mux(packet)
        for k in range(12):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(k), "rgb24")))
        file.mux(stream.encode(None))
    assert numbers(index_video(path)) == list(range(12))


def test_without_pyav_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    pyav.cache_clear()
    with pytest.raises(UsageError) as error:
        pyav()
    assert str(error.value) == "reading videos needs PyAV, which is not installed: pip install 'seqjepa[video]'"
