"""SLIC superpixels (Achanta et al. 2012) of a picture, and merging of neighbours by colour."""

import itertools
from typing import NamedTuple

import numpy as np

from jaxinv.segmentation.label_maps import number

COUNT = 700  # superpixels of a picture, about


class Superpixels(NamedTuple):
    labels: np.ndarray  # int [h, w], 0 ... n - 1
    colors: np.ndarray  # [n, 3] mean CIELAB
    areas: np.ndarray  # [n] pixels
    pairs: np.ndarray  # [m, 2] of neighbours, each pair once
    borders: np.ndarray  # [m] length of the common border in pixels


def slic(image_uint8, count: int = COUNT) -> Superpixels:
    """About `count` superpixels of a picture [h, w, 3], compactness 10 in CIELAB."""
    import skimage.color
    import skimage.segmentation

    labels = skimage.segmentation.slic(
        image_uint8, count, compactness=10.0, sigma=0.5, start_label=0, channel_axis=-1
    )
    labels = number(labels).labels
    lab = skimage.color.rgb2lab(image_uint8)
    areas = np.bincount(labels.ravel())
    colors = np.stack([np.bincount(labels.ravel(), c.ravel()) for c in np.moveaxis(lab, -1, 0)], 1)
    colors = colors / areas[:, None]
    touching = np.concatenate(
        [
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], 1),
            np.stack([labels[:-1].ravel(), labels[1:].ravel()], 1),
        ]
    )
    touching = np.sort(touching[touching[:, 0] != touching[:, 1]], axis=1)
    pairs, borders = np.unique(touching, axis=0, return_counts=True)
    return Superpixels(labels, colors, areas, pairs.reshape(-1, 2), borders)


def merge(superpixels: Superpixels, members, parts: int, least: float = 0.0) -> np.ndarray:
    """Merges neighbours among the superpixels `members` [m] until `parts` regions are left.

    Ward's criterion: the pair whose union adds least to the squared distance of all pixels from
    their region's colour, a_i a_j / (a_i + a_j) |c_i - c_j|^2. With least > 0 merging continues
    below `parts` while that cost, divided by the picture's pixels, is less than `least`. When no
    two regions touch, the same rule is applied to regions apart. Returns the region [m] of each
    member, numbered from 0 by their first members.
    """
    members = np.asarray(members)
    merges, total = _dendrogram(superpixels, members), superpixels.areas.sum()
    region = np.arange(len(members))
    for left, (source, kept, cost) in zip(range(len(members), 1, -1), merges, strict=True):
        if left <= parts and cost >= least * total:
            break
        region[region == source] = kept
    _, first, region = np.unique(region, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[region]


def _dendrogram(superpixels: Superpixels, members) -> list[tuple[int, int, float]]:
    """All merges down to one region, in order: (region that ends, region that stays, cost)."""
    import skimage.graph

    graph, merges = skimage.graph.RAG(), []
    for i, member in enumerate(members):
        facts = {'area': float(superpixels.areas[member]), 'color': superpixels.colors[member]}
        graph.add_node(i, labels=[i], **facts)

    def cost(i, j):
        a, b = graph.nodes[i], graph.nodes[j]
        areas = a['area'] * b['area'] / (a['area'] + b['area'])
        return areas * float(((a['color'] - b['color']) ** 2).sum())

    def record(graph, source, kept):
        merges.append((source, kept, graph.edges[source, kept]['weight']))
        a, b = graph.nodes[source], graph.nodes[kept]
        area = a['area'] + b['area']
        b['color'] = (a['area'] * a['color'] + b['area'] * b['color']) / area
        b['area'] = area

    def weight(graph, source, kept, neighbour):
        return {'weight': cost(kept, neighbour)}

    def merge_along(pairs):
        for i, j in pairs:
            graph.add_edge(i, j, weight=cost(i, j))
        labels = np.arange(len(members))
        skimage.graph.merge_hierarchical(labels, graph, np.inf, False, True, record, weight)

    index = np.full(len(superpixels.areas), -1)
    index[members] = np.arange(len(members))
    pairs = index[superpixels.pairs]
    merge_along(pairs[(pairs >= 0).all(1)].tolist())
    merge_along(itertools.combinations(graph, 2))  # regions that do not touch
    return merges
