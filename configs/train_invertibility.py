r"""SAM's invertibility network, trained on measured maps (equation 2).

    python -m jaxinv.launch --config=train_invertibility --config.data=DATA

DATA: the work folder of --config=invertibility_data, or several with commas between. `:official`
takes the released code's network and optimiser; it starts from random weights here, there from
ImageNet's.
"""

import ml_collections

from jaxinv import defaults


def get_config(arg=''):
    config = ml_collections.ConfigDict()
    config.task = 'train_invertibility'
    config.seed = 0
    config.data = ''  # see above
    config.lpips = 'auto'  # weights of the trunk 'vgg16'
    config.size = 'vgg16'  # 'official', 'paper', 'small': networks.invertibility.SIZES
    config.held_out = 0.2  # share of the pictures
    config.train_on_real = False  # True = real photographs are split like the others

    config.num_steps = 600
    config.chunk_steps = 50  # steps between progress lines and checkpoints
    config.batch_size = 8  # pictures
    config.optimizer = 'adam'  # with decoupled weight decay; or 'sgd' with momentum 0.9
    config.learning_rate = 1e-3  # falls to 0 as (1 - t)^0.9
    config.trunk_rate = 1.0  # of the ResNet, in units of learning_rate
    config.weight_decay = 1e-4
    return defaults.variant(config, arg, {'official': _official, 'quicktest': _quicktest})


def _official(config):
    config.size = 'official'
    config.optimizer = 'sgd'
    config.learning_rate, config.trunk_rate = 1e-3, 0.1
    config.weight_decay = 5e-4
    config.batch_size = 16
    config.num_steps = 62_500  # 100 epochs of 10 000 pictures
    config.train_on_real = True


def _quicktest(config):
    config.num_steps, config.batch_size = 4, 2
