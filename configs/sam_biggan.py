r"""SAM on BigGAN-deep: regions of a picture in Z+, F2 or F4, with its class kept (appendix 6.3).

    python -m jaxinv.launch --config=sam_biggan --config.data.images=FOLDER \
        --config.generator=biggan256                        # the converted weights (docs/biggan.md)
    python -m jaxinv.launch --config=sam_biggan ... --config.label=207       # one class for all
    python -m jaxinv.launch --config=sam_biggan ... --config.edits="('class:208=0.5','my.npy=2')"
    python -m jaxinv.launch --config=sam_biggan:paper ...                    # SAM's 1001 steps
    python -m jaxinv.launch --config=sam_biggan:z_plus ...                   # a baseline

Variants are joined by commas. Baselines: z, z_plus, f2, f4 (one space for all of a picture), pti,
pti_sam. Ablations: no_offset_penalty, no_refinement, lpips_alex; sweep inverts at every threshold.

The default budget is for two CPU cores, as that of configs/sam.py; `:paper` has the steps of SAM's
code. The paper gives no weights for BigGAN; docs/biggan.md says how these were chosen.
"""

from jaxinv import defaults
from jaxinv.configs import _biggan, _sam, _tiny

METHODS = {
    'z': 'w', 'z_plus': 'w_plus', 'f2': 'f2', 'f4': 'f4', 'sam': 'sam', 'pti': 'pti',
    'pti_sam': 'pti_sam',
}  # fmt: skip


def get_config(arg=''):
    config = _sam.get_config()
    _biggan.biggan(config)
    # lambda_Z of both terms of equation 9 and lambda_F of equation 10: docs/biggan.md says why.
    config.sam.prior_weight = 1e-5
    config.sam.spread_weight = 1e-5
    config.sam.offsets, config.sam.offsets_weight = 'sum', 1e-6
    config.prior.epsilon = 0.0  # z's covariance is a multiple of the identity and needs no floor
    return defaults.variant(config, arg, VARIANTS)


def _test(config):
    _tiny.biggan(config)
    _tiny.sam_steps(config)


VARIANTS = _sam.VARIANTS | {
    'test': _test,
    **{name: _sam.method(method) for name, method in METHODS.items()},
}
