"""PTI's steps on StyleGAN2 in plain PyTorch, for against_torch.py.

The arithmetic of the official path without its CUDA extensions: kernels are modulated for each
sample and applied by a grouped convolution, filters are depthwise convolutions after inserting
zeros, and every tuning step computes the LPIPS features of the target again. Written for this
comparison; jaxinv does not use it. Needs `pip install torch`.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812

FIR = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64
ALEX = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))  # stride, padding
VGG = (2, 2, 3, 3, 3)  # convolutions before each pooling
SHIFT = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
SCALE = torch.tensor([0.458, 0.448, 0.450])[:, None, None]


class Generator:
    """params and noise: {NVIDIA's name without 'synthesis.': tensor}, images [b, 3, h, w]."""

    def __init__(self, state: dict[str, torch.Tensor]):
        synthesis = {k.removeprefix('synthesis.'): v for k, v in state.items() if 'synth' in k}
        self.noise = {k: v for k, v in synthesis.items() if k.endswith('noise_const')}
        self.params = {
            k: v for k, v in synthesis.items() if k not in self.noise and 'filter' not in k
        }
        self.mapping = {k: v for k, v in state.items() if k.startswith('mapping.')}
        self.sizes = sorted({int(k[1:].split('.')[0]) for k in self.params})

    def map(self, z):
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for i in range(sum('.weight' in k for k in self.mapping)):
            weight, bias = (self.mapping[f'mapping.fc{i}.{kind}'] for kind in ('weight', 'bias'))
            x = F.linear(x, weight * (0.01 / math.sqrt(weight.shape[1])), bias * 0.01)
            x = F.leaky_relu(x, 0.2) * math.sqrt(2)
        return x

    def synthesize(self, w, params=None, noise=None):
        """w [b, num_ws, w_dim]."""
        params = self.params if params is None else params
        noise = self.noise if noise is None else noise
        x, images, row = params['b4.const'][None].expand(len(w), -1, -1, -1), None, 0
        for size in self.sizes:
            for conv in ('conv0', 'conv1') if size > 4 else ('conv1',):
                x = _layer(x, w[:, row], params, f'b{size}.{conv}', noise, up=conv == 'conv0')
                row += 1
            if images is not None:
                images = _up(images)
            style = _affine(w[:, row], params, f'b{size}.torgb')
            weight, bias = (params[f'b{size}.torgb.{kind}'] for kind in ('weight', 'bias'))
            new = _modulated(x, weight, style / math.sqrt(weight.shape[1]), demodulate=False)
            new = new + bias[:, None, None]
            images = new if images is None else images + new
        return images


def _affine(w, params, name):
    weight, bias = params[f'{name}.affine.weight'], params[f'{name}.affine.bias']
    return F.linear(w, weight / math.sqrt(weight.shape[1]), bias)


def _layer(x, w, params, name, noise, up):
    x = _modulated(x, params[f'{name}.weight'], _affine(w, params, name), up=up)
    x = x + noise[f'{name}.noise_const'] * params[f'{name}.noise_strength']
    x = x + params[f'{name}.bias'][:, None, None]
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _modulated(x, weight, style, demodulate=True, up=False):
    b, c, h, w = x.shape
    kernel = weight[None] * style[:, None, :, None, None]
    if demodulate:
        norm = (kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        kernel = kernel * norm
    x = x.reshape(1, b * c, h, w)
    if up:
        kernel = kernel.transpose(1, 2).reshape(b * c, -1, *weight.shape[2:])
        x = F.conv_transpose2d(x, kernel, stride=2, groups=b)
        x = _filter(x, (1, 1, 1, 1))
    else:
        kernel = kernel.reshape(-1, *kernel.shape[2:])
        x = F.conv2d(x, kernel, padding=weight.shape[-1] // 2, groups=b)
    return x.reshape(b, -1, *x.shape[2:])


def _filter(x, padding):
    channels = x.shape[1]
    kernel = (FIR * 4)[None, None].expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(x, padding), kernel, groups=channels)


def _up(x):
    b, c, h, w = x.shape
    x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(b, c, 2 * h, 2 * w)
    return _filter(x, (2, 1, 2, 1))


class Lpips:
    """LPIPS from jaxinv's arrays; images [b, 3, h, w] in [-1, 1]."""

    def __init__(self, weights):
        tensors = {k: torch.tensor(v) for k, v in weights.items()}
        self.vgg = 'conv12_kernel' in tensors
        self.convs = [
            (tensors[f'conv{i}_kernel'].permute(3, 2, 0, 1).contiguous(), tensors[f'conv{i}_bias'])
            for i in range(13 if self.vgg else 5)
        ]
        self.heads = [tensors[f'head{i}'][:, None, None] for i in range(5)]

    def features(self, images):
        x, maps, convs = (images - SHIFT) / SCALE, [], iter(self.convs)
        for i in range(5):
            if self.vgg:
                x = F.max_pool2d(x, 2) if i else x
                for _ in range(VGG[i]):
                    x = F.relu(F.conv2d(x, *next(convs), padding=1))
            else:
                x = F.max_pool2d(x, 3, 2) if i in (1, 2) else x
                stride, padding = ALEX[i]
                x = F.relu(F.conv2d(x, *next(convs), stride=stride, padding=padding))
            maps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return maps

    def distance(self, features_a, features_b):
        return sum(
            ((a - b).square() * head).sum(1).mean((1, 2))
            for a, b, head in zip(features_a, features_b, self.heads, strict=True)
        )


def make_tuning(generator, alex, targets, pivots, w_avg, regularised):
    """A function step(z) -> loss of PTI's tuning, with the regulariser as in its code."""
    params = {k: v.clone().requires_grad_() for k, v in generator.params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=3e-4)
    rows = 2 * len(generator.sizes)

    def step(z):
        images = generator.synthesize(pivots, params)
        loss = (images - targets).square().mean() + alex.distance(
            alex.features(images), alex.features(targets)
        ).mean()
        if regularised:
            with torch.no_grad():
                w = w_avg + 0.5 * (generator.map(z) - w_avg)
                direction = w[:, None].expand(-1, rows, -1) - pivots
                direction = direction / direction.square().sum((1, 2), keepdim=True).sqrt()
                codes = pivots + 30 * direction
                original = generator.synthesize(codes)
            tuned = generator.synthesize(codes, params)
            distance = alex.distance(alex.features(tuned), alex.features(original))
            loss = loss + 0.1 * (distance.mean() + (tuned - original).square().mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def make_projection(generator, vgg, targets, start):
    """A function step(_) -> LPIPS of the projection into W; w and the noise maps are optimised."""
    w = start.clone().requires_grad_()
    noise = {
        k: v.expand(len(w), 1, -1, -1).clone().requires_grad_() for k, v in generator.noise.items()
    }
    optimizer = torch.optim.Adam([w, *noise.values()], lr=0.01)
    rows = 2 * len(generator.sizes)
    target_features = vgg.features(_at_256(targets))

    def step(_):
        images = generator.synthesize(w.expand(-1, rows, -1), noise=noise)
        distance = vgg.distance(vgg.features(_at_256(images)), target_features)
        loss = distance.sum() + 1e5 * sum(_noise_term(maps) for maps in noise.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for maps in noise.values():
                maps -= maps.mean((1, 2, 3), keepdim=True)
                maps *= maps.square().mean((1, 2, 3), keepdim=True).rsqrt()
        return distance.mean().detach()

    return step


def _at_256(images):
    return F.interpolate(images, 256, mode='area') if images.shape[2] > 256 else images


def _noise_term(maps):
    total = 0
    while True:
        for axis in (2, 3):
            products = maps * maps.roll(1, axis)
            total = total + products.mean((1, 2, 3)).square().sum()
        if maps.shape[2] <= 8:
            return total
        maps = F.avg_pool2d(maps, 2)
