r"""SAM's invertibility network, trained on measured maps (equation 2).

    python -m jaxinv.launch --config=train_invertibility --config.data=DATA

DATA: the work folder of --config=invertibility_data, or several separated by commas.

The default differs from the paper: a frozen LPIPS-VGG trunk, where the paper trains a ResNet
DeepLab as a whole (--config.size=paper). `:official` takes network and optimiser of the released
code, from random weights, where the code starts from ImageNet's.
"""

from jaxinv import defaults


def get_config(arg=''):
    config = defaults.get_config('train_invertibility')
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
