"""Collectives read from HLO: kinds, bytes, groups in both notations, and their mesh axes."""

import numpy as np
import pytest

from benchmarks import collectives
from jaxinv import errors

SIZES = {'data': 2, 'fsdp': 2}


def only(line):
    (collective,) = collectives.read(line)
    return collective


def test_a_sum_of_several_arrays():
    collective = only(
        '  %all-reduce.1 = (f32[3,5]{1,0}, bf16[8]{0}) all-reduce(%a, %b), channel_id=1, '
        'replica_groups={{0,2},{1,3}}, use_global_device_ids=true, to_apply=%add'
    )
    assert collective.kind == 'all-reduce' and collective.shapes == ((3, 5), (8,))
    assert collective.bytes == 3 * 5 * 4 + 8 * 2
    np.testing.assert_array_equal(collective.groups, [[0, 2], [1, 3]])
    assert collectives.axis(collective, SIZES) == 'data'
    assert collective.sent(4) == collective.bytes  # 2 (n - 1) / n of it with two


@pytest.mark.parametrize(
    'groups,axis',
    [
        ('[2,2]<=[4]', 'fsdp'),
        ('[2,2]<=[2,2]T(1,0)', 'data'),
        ('[1,4]<=[4]', 'data, fsdp'),
        ('{}', 'data, fsdp'),
        ('{{1,0},{3,2}}', 'fsdp'),
    ],
)
def test_groups_in_every_notation(groups, axis):
    collective = only(f'%x = f64[4]{{0}} all-reduce(%y), replica_groups={groups}, to_apply=%add')
    assert collective.bytes == 32 and collectives.axis(collective, SIZES) == axis


def test_gathers_and_scatters_count_the_whole_array():
    gathered = only(
        '%g = f32[6,2]{1,0:T(8,128)} all-gather(%x), replica_groups=[2,2]<=[4], dimensions={0}'
    )
    scattered = only(
        '%s = f32[3,2]{1,0} reduce-scatter(%x), replica_groups={{0,1},{2,3}}, dimensions={0}'
    )
    assert gathered.bytes == scattered.bytes == 48
    assert gathered.sent(4) == scattered.sent(4) == 24


def test_asynchronous_pairs_count_once():
    text = """
    %s = (f32[3,2]{1,0}, f32[6,2]{1,0}) all-gather-start(%x), replica_groups={{0,1},{2,3}}
    %d = f32[6,2]{1,0} all-gather-done(%s)
    """
    assert only(text).shapes == ((6, 2),) and only(text).bytes == 48


def test_groups_across_axes_are_refused():
    collective = only('%x = f32[4]{0} all-reduce(%y), replica_groups={{0,3},{1,2}}, to_apply=%add')
    with pytest.raises(errors.JaxinvError, match='along no axis of'):
        collectives.axis(collective, SIZES)
