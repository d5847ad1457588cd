"""Every measure of an aligned face at once, named NAME/SOURCE, and the attributes of edits.

    values = measure(images_uint8)  # {'yaw/dlib': [n], 'yaw/head_pose': [n], ...}

An attribute has a measure that steers (directions are fitted to it) and one of another source that
judges: another network, or another statistic of other regions (faces/regions.py).
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxinv.faces import attributes, controls, detect, geometry, judges, mesh, regions


class Attribute(NamedTuple):
    steer: str  # measures, as `measure` names them
    judge: str
    unit: str  # of the first
    free: tuple[str, ...] = ()  # attributes that a direction of this one may change
    judge_unit: str = ''  # of the second; '' = the same


_MOUTH = ('mouth_open', 'lips')
_EYES = ('eyes_closed', 'eyes_wide')
_OF_EYES, _OF_AN_EYE = '% of the eye distance', "% of an eye's width"
_HAIR = ('hair_length', 'fringe')
ATTRIBUTES = {
    'yaw': Attribute('yaw/dlib', 'yaw/head_pose', 'degree'),
    'pitch': Attribute('pitch/mesh', 'pitch/head_pose', 'degree', ('face_width',)),
    'roll': Attribute('roll/mesh', 'roll/head_pose', 'degree'),
    'smile': Attribute('smile/dlib', 'smile/blendshapes', 'smile', _MOUTH, 'log-odds'),
    'mouth_open': Attribute('mouth_open/mesh', 'mouth_open/dlib', _OF_EYES, ('smile',)),
    'eyes_closed': Attribute('blink/blendshapes', 'eye_closed/dlib', 'log-odds', _EYES, _OF_AN_EYE),
    'eyes_wide': Attribute('eye_open/mesh', 'eye_open/dlib', _OF_AN_EYE, _EYES),
    'gaze': Attribute('gaze/mesh', 'gaze/dlib', _OF_AN_EYE),
    'brows': Attribute('brows/mesh', 'brows/dlib', _OF_EYES, _EYES),
    'age': Attribute('age/first', 'age/second', 'year'),
    'gender': Attribute('gender/first', 'gender/second', 'log-odds', ('beard', *_HAIR), 'of 1'),
    'glasses': Attribute('glasses/dlib', 'glasses/mesh', 'of 1', (), 'log of edges'),
    'beard': Attribute('beard/mesh', 'beard/dlib', '%', ('gender',), '% (log)'),
    'hair_length': Attribute('hair_length/deeplab', 'hair_length/mesh', '%', ('gender', *_HAIR)),
    'fringe': Attribute('fringe/mesh', 'fringe/dlib', '%', _HAIR, '% (log)'),
    'hair_colour': Attribute('hair_colour/mesh', 'hair_colour/deeplab', 'L*', ('fringe',)),
    'light': Attribute('light/mesh', 'light/dlib', 'stop'),
    'skin': Attribute('skin/mesh', 'skin/dlib', 'L*'),
    'face_width': Attribute('face_width/mesh', 'face_width/dlib', '%', ('pitch',)),
    'lips': Attribute('lips/mesh', 'lips/dlib', _OF_EYES, ('mouth_open', 'smile')),
}  # fmt: skip


FEW = ('age', 'smile', 'yaw')  # of attributes.measure
JUDGES = ('head_pose', 'second', 'eye_state')  # sources of judges.measure, which need dlib's points


def measure(images_uint8, only: str = '') -> dict[str, np.ndarray]:
    """{'NAME/SOURCE': float64 [n]} of aligned uint8 pictures [n, h, h, 3]; NaN without a face.

    only: one measure; '' = all, for which every network runs. Of another source than JUDGES the
    others are measured along.
    """
    images = np.asarray(images_uint8)
    count = len(images)
    found = [detect.landmarks_aligned(image) for image in images]
    dlib = np.stack([np.full((68, 2), np.nan) if one is None else one for one in found])
    if only.partition('/')[2] in JUDGES:
        return {only: _judged(images, dlib)[only]}
    dense = mesh.landmarks478(images)
    masks = regions.person(images)
    values: dict[str, np.ndarray] = {}

    def put(source, index, results):
        for name, value in results.items():
            values.setdefault(f'{name}/{source}', np.full(count, np.nan))[index] = value

    for i in range(count):
        if found[i] is None or not np.isfinite(dense[i]).all():
            continue
        first = geometry.measure(dlib[i])
        first['smile'], first['yaw'] = attributes.smile(dlib[i]), attributes.yaw(dlib[i])
        first['glasses'] = controls.glasses(images[i], dlib[i])
        put('dlib', i, {**first, **regions.by_dlib(images[i], dlib[i])})
        put('deeplab', i, regions.by_mask(images[i], dlib[i], dense[i], masks[i]))
        put('mesh', i, {**geometry.measure(dense[i]), **regions.by_mesh(images[i], dense[i])})
    faces = [i for i, one in enumerate(found) if one is not None]
    put('first', faces, attributes.of_chips(images, dlib, faces))
    put('first', faces, controls.of_chips(images, dlib, faces))
    put('blendshapes', slice(None), _expressions(mesh.blendshapes_of(dense)))
    return values | _judged(images, dlib)


def _judged(images, dlib) -> dict[str, np.ndarray]:
    sources = {'eyes_closed': 'eye_state', 'age': 'second', 'gender': 'second'}
    found = judges.measure(images, dlib)
    return {f'{name}/{sources.get(name, "head_pose")}': values for name, values in found.items()}


def _expressions(scores):
    """Log-odds of scores of both sides: the scores themselves saturate."""
    groups = {
        'smile': ('mouthSmileLeft', 'mouthSmileRight'),
        'blink': ('eyeBlinkLeft', 'eyeBlinkRight'),
        'wide': ('eyeWideLeft', 'eyeWideRight'),
        'jaw': ('jawOpen',),
    }
    results = {}
    for name, parts in groups.items():
        mean = np.clip(np.mean([scores[part] for part in parts], 0), 1e-3, 1 - 1e-3)
        results[name] = np.log(mean / (1 - mean))
    return results


def steering(names: Iterable[str]) -> Callable[[Any], dict[str, np.ndarray]]:
    """Measures attributes by what steers them: uint8 pictures [n, h, h, 3] -> {attribute: [n]}.

    For strengths that are given as changes (jaxinv.edits.solve). age, smile and yaw need only their
    own networks; with any other name all measures are made.
    """
    if set(names) <= set(FEW):
        return attributes.measure

    def measured(images_uint8):
        values = measure(images_uint8)
        return {name: values[own.steer] for name, own in ATTRIBUTES.items() if own.steer in values}

    return measured
