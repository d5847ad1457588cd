"""Random tiny generators and a few steps of each kind, for the tests only."""


def generator(config):
    config.generator = 'tiny'
    config.resolution = 32
    config.data.align = 'face'
    config.w_statistics.num_samples = 100
    config.pivot.num_steps = config.tune.num_steps = 4
    config.pivot.chunk_steps = config.tune.chunk_steps = 2
    config.edits = ()
    if 'drift' in config:
        config.drift.num_samples = 2


def biggan(config):
    """As `generator`, with classes."""
    generator(config)
    config.generator, config.resolution = 'tiny_biggan', None
    config.data.align = 'none'


def sam_steps(config):
    config.sam.num_steps = config.invertibility.num_steps = 4
    config.sam.chunk_steps = 2
    config.prior.num_samples = 200
    config.segments.how = 'slic'
    config.segments.parts = 4
    config.sweep.taus = (0.1, 0.3, 0.5)


def comparison(config):
    """Methods with the variant 'test', on the tiny generator."""
    config.generator, config.resolution = 'tiny', 32
    config.data.align = 'face'
    config.methods = 'w=w:test,pti=pti:test'
    config.statistics.resamples = 200
