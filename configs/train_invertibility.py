r"""SAM's invertibility network, trained on measured maps (equation 2).

    python -m jaxinv.launch --config=train_invertibility --config.data=DATA

DATA: the work folder of --config=invertibility_data, or several with commas between. `:official`
takes the released code's network and optimiser; it starts from random weights here, there from
ImageNet's.
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
