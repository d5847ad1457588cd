r"""Pivotal tuning of one generator on the frames of a video (PTI, equation 3), edited in time.

    python -m jaxinv.launch --config=pti_video --config.data.video=CLIP.mp4
    python -m jaxinv.launch --config=pti_video --config.data.video=FOLDER --config.data.fps=25
    python -m jaxinv.launch --config=pti_video --config.data.video=CLIP.mp4 \
        --config.edits="('smile=0@0s,1.2@2s',)"                  # strengths at times
    python -m jaxinv.launch --config=pti_video:paper ...         # 450 + 350 steps

The default budget is for two CPU cores and a short clip; docs/video.md has what was measured.
"""

from jaxinv import defaults
from jaxinv.configs import _pti, _tiny


def get_config(arg=''):
    config = defaults.get_config('invert_video')
    _pti.quick(config)
    config.tune.batch_size = 4  # frames from all over the video in an Adam step
    config.tune.resident = 16
    return defaults.variant(config, arg, {'paper': _paper, 'test': _test})


def _paper(config):
    _pti.paper(config)
    config.tune.batch_size = 0


def _test(config):
    _tiny.generator(config)
    config.temporal.refine_steps = 2
