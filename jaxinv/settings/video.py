"""Settings of --config=pti_video: one generator for all frames of a video, edits in time."""

import dataclasses
from typing import ClassVar

from jaxinv.errors import JaxinvError
from jaxinv.settings.declare import Section, setting, subsection
from jaxinv.settings.tasks import Data, Inversion

NOT_OF_VIDEOS = ('images', 'tfds', 'faces', 'aligned', 'fit', 'limit')


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoData(Data):
    """A video."""

    section: ClassVar[str] = 'data'

    video: str = setting('', 'A video file, or a folder of pictures in their natural order.')
    fps: float = setting(25.0, 'Frames a second of a folder; a file has its own times.', above=0)
    max_frames: int = setting(0, 'So many from the start are used; 0 = all.', least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track(Section):
    """The face in every frame, and the alignment square that follows it."""

    section: ClassVar[str] = 'track'

    centre_sigma: float = setting(
        1.0, "Frames, of the Gaussian that smooths the square's centre in time; 0 = off.", least=0
    )
    axes_sigma: float = setting(
        2.0, "Frames, the same of the square's size and angle, and of the mask; 0 = off.", least=0
    )
    max_gap: int = setting(
        12,
        'Frames in a row without a face that are interpolated; those of longer gaps stay as they '
        'are.',
        least=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Temporal(Section):
    """Pivots that change smoothly in time."""

    section: ClassVar[str] = 'temporal'

    anchor_every: int = setting(
        0,
        'Frames whose pivot is searched from the mean of W (config.pivot): 0 = the middle one of '
        'each shot, k = every k-th, between which the others start. 1 = every frame by itself.',
        least=0,
    )
    refine_steps: int = setting(
        20, 'Steps of every frame from there; 0 = where they start are the pivots.', least=0
    )
    refine_rate: float = setting(0.02, 'Peak of the learning rate of these steps.', least=0)
    pivot_sigma: float = setting(
        2.0, 'Frames, of the Gaussian that smooths the pivots in time; 0 = off.', least=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding(Section):
    """The videos that are written, H.264 in mp4."""

    section: ClassVar[str] = 'encode'

    mask: str = setting(
        'face',
        "What is pasted: 'face' = an ellipse around jaw and forehead, 'crop' = the whole square.",
        choices=('face', 'crop'),
    )
    match_colour: bool = setting(
        True, "Shifts the face's colours to the frame's along the seam (docs/photographs.md)."
    )
    crf: int = setting(18, 'Quality of x264: 0 = lossless, 51 = worst.', least=0, most=51)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertVideo(Inversion):
    """Pivotal tuning of a video: --config=pti_video."""

    task: str = setting('invert_video', 'Main path of this config; not to be changed.')
    group: int = setting(0, 'Not for videos: frames are always streamed.', least=0, most=0)
    edits: tuple = setting(
        ('smile=1.2',),
        "A video each: NAME=STRENGTH, or strengths at times, 'smile=0@0s,1.2@2s', linear in "
        'between (docs/video.md); () = the reconstruction alone.',
    )
    paste: bool = setting(
        True, 'Back into the frames, at full size; False = the aligned faces are the video.'
    )

    data: VideoData = subsection(VideoData, without=NOT_OF_VIDEOS)
    track: Track = subsection(Track)
    temporal: Temporal = subsection(Temporal)
    encode: Encoding = subsection(Encoding)

    def check(self) -> None:
        super().check()
        if not self.tune.shared:
            raise JaxinvError(
                'tune.shared is False; one generator is tuned for all frames of a video '
                '(tune.shared=True).'
            )
