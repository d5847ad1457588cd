"""What the configs of BigGAN-deep share."""


def biggan(config):
    """BigGAN-deep: a folder with its weights, classes predicted, its own directions for edits."""
    config.generator = 'biggan256'  # that `python -m converters FOLDER biggan256` wrote
    config.latent = 'Z'
    config.pivot.learning_rate = 0.1
    config.pivot.initial_noise_factor = 0.0  # noise on z only delays: docs/biggan.md
    config.edits = ()  # e.g. 'class:207=0.5', half the way to class 207, or a file of a direction
