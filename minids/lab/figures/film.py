"""Pictures in motion: the frames of a film, as a GIF of one palette or as MP4."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from minids.errors import MinidsError

ACROSS, RATE = 960, 20  # pixels of a frame's width; frames of an MP4 per second


@dataclass(frozen=True)
class Film:
    """``moments(rows)`` → (what is shown, milliseconds) of every frame; ``draw(slide, rows, what)`` draws one, by default the
    picture's own function."""

    moments: Callable[[list[dict]], Sequence[tuple[Any, int]]]
    draw: Callable[[Any, list[dict], Any], None] | None = None

    def slides(self, picture, rows, look) -> Iterator[tuple[Any, int]]:
        """The slide of each moment, and its milliseconds."""
        for what, milliseconds in self.moments(rows):
            yield picture.slide(rows, None, look, lambda slide, rows, what=what: self.draw(slide, rows, what)), milliseconds

    def frames(self, picture, rows, look) -> Iterator[tuple[np.ndarray, int]]:
        """Each frame's pixels, (h, w) of one number a colour, and its milliseconds."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        for slide, milliseconds in self.slides(picture, rows, look):
            slide.figure.set_dpi(ACROSS / slide.figure.get_figwidth())
            canvas = FigureCanvasAgg(slide.figure)
            canvas.draw()
            yield np.asarray(canvas.buffer_rgba()).view(np.uint32)[..., 0].copy(), milliseconds


def in_turn(shown: Sequence, each: int, last: int) -> list[tuple[Any, int]]:
    """Moments one after another: ``each`` so many milliseconds, the last longer."""
    return [*((what, each) for what in shown[:-1]), (shown[-1], last)]


def gif(frames: Sequence[tuple[np.ndarray, int]]) -> bytes:
    """A GIF that starts again when it is over."""
    images, durations = _in_one_palette([pixels for pixels, _ in frames]), [milliseconds for _, milliseconds in frames]
    out = io.BytesIO()
    images[0].save(out, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
    return out.getvalue()


def _in_one_palette(frames: list[np.ndarray]) -> list:
    """Images of the commonest colours of all frames, each as it is: with a palette each, or one of mixed colours, the
    background would change from frame to frame."""
    from PIL import Image

    found = [np.unique(frame, return_inverse=True, return_counts=True) for frame in frames]
    common, inverse = np.unique(np.concatenate([colours for colours, *_ in found]), return_inverse=True)
    counts = np.bincount(inverse, np.concatenate([count for *_, count in found]))
    palette = common[np.argsort(-counts, kind="stable")[:64]].view(np.uint8).reshape(-1, 4)[:, :3]
    images = []
    for (colours, inverse, _), frame in zip(found, frames, strict=True):
        rgb = colours.view(np.uint8).reshape(-1, 4)[:, :3].astype(int)
        nearest = ((rgb[:, None] - palette) ** 2).sum(axis=-1).argmin(axis=1).astype(np.uint8)
        images.append(Image.fromarray(nearest[inverse].reshape(frame.shape)))
        images[-1].putpalette(palette.tobytes())
    return images


def ffmpeg() -> str:
    """The program that makes MP4s: the system's, or the one of the package imageio-ffmpeg."""
    if found := shutil.which("ffmpeg"):
        return found
    if find_spec("imageio_ffmpeg") is None:
        raise MinidsError('MP4 needs ffmpeg, which is not installed; pip install "minids[film]" brings one')
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def mp4(frames: Sequence[tuple[np.ndarray, int]]) -> bytes:
    """An MP4 that every slide program plays (H.264)."""
    high, wide = frames[0][0].shape
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "film.mp4"
        command = [ffmpeg(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgba", "-s", f"{wide}x{high}"]
        command += ["-r", str(RATE), "-i", "-", "-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2", "-pix_fmt", "yuv420p", str(out)]
        told = b"".join(pixels.tobytes() * max(1, round(milliseconds * RATE / 1000)) for pixels, milliseconds in frames)
        done = subprocess.run(command, input=told, capture_output=True, check=False)
        if done.returncode:
            raise MinidsError(f"ffmpeg: {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
        return out.read_bytes()


FILMS: dict[str, Callable[[Sequence[tuple[np.ndarray, int]]], bytes]] = {"gif": gif, "mp4": mp4}
