"""A video, or a camera's frames, labelled by a model: each frame under the colours of its classes.

    python examples/label_video.py MODEL VIDEO OUT.mp4 [--format FORMAT] [--frames N]

MODEL is the name of a shipped one or a .safetensors file. A camera is a VIDEO of a format: on Linux
`/dev/video0 --format v4l2`. It ends with the video, after N frames, or with Ctrl-C; what it has
labelled until then is in OUT.mp4. Needs the extra `video` (PyAV).
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np

from nas_core.base.errors import NasError
from nas_core.data.overlay import overlay
from nas_core.deploy.predict import Predictor

try:
    import av
except ModuleNotFoundError:
    sys.exit("error: the package av is missing; install nas-seg[video]")


def main() -> None:
    parser = argparse.ArgumentParser(description="Label a video.")
    parser.add_argument("model")
    parser.add_argument("video")
    parser.add_argument("out", type=Path)
    parser.add_argument("--format", help="of the video, where it is a camera: v4l2, avfoundation")
    parser.add_argument("--frames", type=int, default=sys.maxsize, help="at most")
    given = parser.parse_args()
    if given.frames < 1:
        parser.error(f"argument --frames: {given.frames}: expected 1 or more")
    if given.out.suffix != ".mp4" or not given.out.absolute().parent.is_dir():
        parser.error(f"argument out: {given.out}: expected the path of an .mp4 file to write")
    if given.out.exists() and Path(given.video).exists() and given.out.samefile(given.video):
        parser.error(f"argument out: {given.out} is the video: it would be overwritten")
    try:
        predictor = Predictor.load(given.model)
        label_video(predictor, given.video, given.out, given.format, given.frames)
    except (NasError, OSError, av.FFmpegError) as error:
        sys.exit(f"error: {error}")
    except ValueError as error:  # of an unknown --format
        sys.exit(f"error: {given.video}: {error}")


def label_video(predictor: Predictor, video: str, out: Path, kind: str | None, most: int) -> None:
    palette = np.array(predictor.card.palette, np.uint8)
    num, started = 0, time.perf_counter()
    with av.open(video, format=kind) as source:
        if not source.streams.video:
            sys.exit(f"error: {video} has no pictures")
        given = source.streams.video[0]
        # The encoder takes even sizes alone.
        width, height = given.width // 2 * 2, given.height // 2 * 2
        with av.open(out, "w") as target:
            stream = target.add_stream(
                "libx264", given.average_rate or 25, width=width, height=height
            )
            try:
                for frame in itertools.islice(source.decode(video=0), most):
                    image = frame.to_ndarray(format="rgb24").astype(np.uint8)[:height, :width]
                    shown = np.asarray(overlay(image, predictor(image), palette))
                    target.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
                    num += 1
            except KeyboardInterrupt:
                print("stopped", file=sys.stderr)
            target.mux(stream.encode(None))
    print(f"{out}: {num} frames, {num / (time.perf_counter() - started):.1f} a second")


if __name__ == "__main__":
    main()
