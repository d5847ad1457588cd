r"""SAM: each region in the most editable latent space that can reproduce it, with real weights.

    python -m jaxinv.launch --config=sam                                  # two portraits
    python -m jaxinv.launch --config=sam --config.data.images=FOLDER      # faces of yours
    python -m jaxinv.launch --config=sam --config.data.align=none --config.data.fit=pad \
        --config.data.images=FOLDER                                       # anything, whole
    python -m jaxinv.launch --config=sam:paper                            # the code's 1001 steps
    python -m jaxinv.launch --config=sam:official                         # as SAM's code
    python -m jaxinv.launch --config=sam:w_plus                           # a baseline, same report

Variants are joined by commas, as in sam:f6,paper. Baselines: w, w_plus, gaussian_prior, f4, f6, f8,
f10 (one space for all of a picture), pti, pti_sam (SAM with the tuned generator); with
--config.pivot.start=encoder:FILE also e4e, restyle, encoder (of any kind) and hybrid (a search in
W+ from its codes). With --config.sam_encoders=FILE, of --config=train_sam_encoders, encoder is SAM
by its own encoders: regions and offsets without a search. Ablations: no_offset_penalty,
no_refinement, class_map, lpips_alex; sweep inverts at every threshold.

The default budget is for two CPU cores. It differs from `:paper` in the steps of every stage, the
pivot's learning rate of 0.1 and the threshold of 0.26. The paper gives no budget; `:paper` has the
one of its code, and `:official` also what its code does differently (docs/sam.md). pti and pti_sam
tune with the locality regulariser.
"""

from jaxinv import defaults
from jaxinv.configs import _sam, _tiny

METHODS = (
    'w', 'w_plus', 'gaussian_prior', 'f4', 'f6', 'f8', 'f10', 'sam', 'pti', 'pti_sam',
    'encoder', 'e4e', 'restyle', 'hybrid', 'sam_encoder',
)  # fmt: skip
FACE = ('face', 'eyes', 'brows', 'nose', 'mouth')


def get_config(arg=''):
    return defaults.variant(_sam.get_config(), arg, VARIANTS)


def _official(config):
    _sam.paper(config)
    config.sam.spread, config.sam.spread_weight = 'norm', 1e-3
    config.sam.padding = 'crop'
    config.sam.clamp = True
    config.sam.noise = 'random'
    config.prior.num_samples = 5000
    config.prior.order = 'map_of_mean'
    config.prior.epsilon = 1e-8
    config.invertibility.resample = 'lanczos'
    config.edit_mixing = 'official'


def _class_map(config):
    config.invertibility.assign = tuple((part, 'W+') for part in FACE) + (('*', 'F6'),)


def _test(config):
    _tiny.generator(config)
    _tiny.sam_steps(config)


VARIANTS = _sam.VARIANTS | {
    'official': _official,
    'class_map': _class_map,
    'test': _test,
    **{name: _sam.method(name) for name in METHODS},
}
