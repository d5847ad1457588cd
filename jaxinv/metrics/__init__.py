"""Numbers of images against their targets, of faces, and of whole sets of pictures.

images         one number per image: LPIPS, MSE, PSNR, MS-SSIM, and the protocols of the evaluation
identity       faces compared by networks that are independent of each other
distributions  Fréchet and kernel distances between two sets of features
statistics     means, medians and differences with their intervals
"""

from jaxinv.metrics.images import (
    METRICS,
    MICROBATCH,
    PROTOCOLS,
    SAM_METRICS,
    SMALL,
    evaluate,
    lpips_alex,
    lpips_vgg,
    lpips_vgg_full,
    ms_ssim,
    mse,
    psnr,
    ssim_terms,
)

__all__ = [
    'METRICS', 'MICROBATCH', 'PROTOCOLS', 'SAM_METRICS', 'SMALL', 'evaluate', 'lpips_alex',
    'lpips_vgg', 'lpips_vgg_full', 'ms_ssim', 'mse', 'psnr', 'ssim_terms',
]  # fmt: skip
