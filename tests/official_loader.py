"""Runs NVIDIA's own code, for test_official_loader.py: python official_loader.py CODE COMMAND ...

    make FILE.pkl           a small random generator in a pickle, as their training writes it
    render FILE.pkl OUT.npz  their loader's G_ema at fixed codes: images [n, 3, h, w]

CODE: a checkout of NVlabs/stylegan2-ada-pytorch or NVlabs/stylegan3. Needs PyTorch, not jaxinv. The
file that `render` opens runs code, as their loader does: only for files that this test made.
"""

import copy
import pathlib
import pickle
import sys

SIZE, W_DIM = 32, 16


def main(code, command, *paths):
    sys.path.insert(0, code)
    import dnnlib
    import legacy
    import numpy as np
    import torch

    if command == 'make':
        torch.manual_seed(0)
        own = pathlib.Path(code, 'training', 'networks_stylegan2.py').is_file()
        module = 'networks_stylegan2' if own else 'networks'
        sizes = {'channel_base': 512, 'channel_max': 16, 'num_fp16_res': 0}
        generator = dnnlib.util.construct_class_by_name(
            class_name=f'training.{module}.Generator',
            z_dim=W_DIM,
            c_dim=0,
            w_dim=W_DIM,
            img_resolution=SIZE,
            img_channels=3,
            mapping_kwargs={'num_layers': 2},
            **(sizes if own else {'synthesis_kwargs': sizes}),
        )
        generator = generator.eval().requires_grad_(False)
        judge = dnnlib.util.construct_class_by_name(
            class_name=f'training.{module}.Discriminator',
            c_dim=0,
            img_resolution=SIZE,
            img_channels=3,
            channel_base=512,
            channel_max=16,
        )
        content = {
            'training_set_kwargs': {},
            'G': generator,
            'D': judge.eval(),
            'augment_pipe': None,
        }
        content['G_ema'] = copy.deepcopy(generator)
        with open(paths[0], 'wb') as file:
            pickle.dump(content, file)
        return
    with dnnlib.util.open_url(paths[0]) as file:
        generator = legacy.load_network_pkl(file)['G_ema'].eval()
    w = torch.from_numpy(codes(np, generator.num_ws))
    images = generator.synthesis(w, noise_mode='const', force_fp32=True)
    np.savez(paths[1], images=images.numpy())


def codes(np, num_ws):
    """float32 [3, num_ws, W_DIM]"""
    return np.random.RandomState(1).randn(3, num_ws, W_DIM).astype(np.float32)


if __name__ == '__main__':
    main(*sys.argv[1:])
