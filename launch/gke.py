"""Kubernetes: a JobSet on TPU slices or GPU nodes of a GKE cluster.

  python launch/gke.py --name=NAME --image=IMAGE --tpu=tpu-v5-lite-podslice --topology=8x8 \\
      --claim=VOLUME_CLAIM -- --config=pti_multi_id --workdir=/runs/RUN
  python launch/gke.py --name=NAME --image=IMAGE --gpu=nvidia-h100-80gb --nodes=4 \\
      --chips-per-node=8 --claim=VOLUME_CLAIM -- --config=pti_multi_id --workdir=/runs/RUN

Applies the manifest with kubectl, or prints it with --dry-run. Needs PyYAML here and the JobSet
controller in the cluster. Each node runs one process. The claim must be writable from all nodes; it
is mounted at /runs. An evicted pod gets SIGTERM and --lead seconds, saves, and ends with exit code
75. That exit code, and the loss of a node, restart the JobSet without counting; other failures
restart it at most --restarts times.
"""

import math
import re
import shlex
import subprocess
import sys

import common
import xla_flags

try:
    import yaml
except ImportError:
    raise SystemExit('gke.py: PyYAML is not installed; run: pip install PyYAML') from None

PORT = 8476  # of the coordinator, on GPU nodes; JAX chooses its own on TPUs


def make_parser():
    parser = common.parser(__doc__)
    parser.add_argument('--name', required=True, help='of the JobSet')
    parser.add_argument(
        '--image', required=True, help='container image with jaxinv and JAX for the chips'
    )
    chips = parser.add_mutually_exclusive_group(required=True)
    chips.add_argument('--tpu', help='gke-tpu-accelerator, e.g. tpu-v5-lite-podslice')
    chips.add_argument('--gpu', help='gke-accelerator, e.g. nvidia-h100-80gb')
    parser.add_argument('--topology', help='of a TPU slice, e.g. 8x8')
    parser.add_argument('--slices', type=common.positive, default=1, help='TPU slices')
    parser.add_argument('--nodes', type=common.positive, default=1, help='GPU nodes')
    parser.add_argument('--chips-per-node', type=common.positive, default=4)
    parser.add_argument('--claim', help='PersistentVolumeClaim that all nodes can write')
    parser.add_argument('--spot', action='store_true', help='use spot nodes')
    parser.add_argument(
        '--lead', type=common.positive, default=120, help='seconds between SIGTERM and SIGKILL'
    )
    parser.add_argument('--restarts', type=int, default=3, help='after failures of other kinds')
    xla_flags.add_option(parser)
    return parser


def main(argv) -> int:
    parser = make_parser()
    options, rest = common.parse(parser, argv)
    if options.tpu and not re.fullmatch(r'\d+(x\d+){1,2}', options.topology or ''):
        parser.error('--tpu needs --topology, e.g. 8x8')
    if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', options.name):
        parser.error('--name takes lower-case letters, digits and -, at most 40')
    text = manifest(options, rest)
    if options.dry_run:
        print(text, end='')
        return 0
    return subprocess.run(['kubectl', 'apply', '-f', '-'], input=text, text=True).returncode


def manifest(options, rest) -> str:
    """The JobSet as YAML; rest: the arguments of jaxinv.launch."""
    metadata = {'name': options.name}
    if options.tpu:
        chips = math.prod(map(int, options.topology.split('x')))
        nodes, replicas = max(1, chips // options.chips_per_node), options.slices
        limits = {'google.com/tpu': min(chips, options.chips_per_node)}
        selector = {
            'cloud.google.com/gke-tpu-accelerator': options.tpu,
            'cloud.google.com/gke-tpu-topology': options.topology,
        }
        # All pods of a slice in one node pool, which is one slice.
        exclusive = {'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'}
        metadata['annotations'] = exclusive
    else:
        nodes, replicas = options.nodes, 1
        limits = {'nvidia.com/gpu': options.chips_per_node}
        selector = {'cloud.google.com/gke-accelerator': options.gpu}
    if options.spot:
        selector['cloud.google.com/gke-spot'] = 'true'
    workers = {
        'name': 'workers',
        'replicas': replicas,
        'template': {'spec': _job(_pod(options, rest, nodes, selector, limits), nodes)},
    }
    # The reason of the rules in _job: preempted with saved state, or evicted.
    ignored = {
        'action': 'RestartJobSetAndIgnoreMaxRestarts',
        'onJobFailureReasons': ['PodFailurePolicy'],
    }
    jobset = {
        'apiVersion': 'jobset.x-k8s.io/v1alpha2',
        'kind': 'JobSet',
        'metadata': metadata,
        'spec': {
            'network': {'enableDNSHostnames': True},
            'failurePolicy': {'maxRestarts': options.restarts, 'rules': [ignored]},
            'replicatedJobs': [workers],
        },
    }
    return yaml.safe_dump(jobset, sort_keys=False, width=10_000, allow_unicode=True)


def _job(pod, nodes: int) -> dict:
    """An indexed job with one pod for each node. Any pod's failure fails the job."""
    preempted = {'containerName': 'jaxinv', 'operator': 'In', 'values': [common.PREEMPTED]}
    evicted = [{'type': 'DisruptionTarget', 'status': 'True'}]
    return {
        'parallelism': nodes,
        'completions': nodes,
        'completionMode': 'Indexed',
        'backoffLimit': 0,
        'podFailurePolicy': {
            'rules': [
                {'action': 'FailJob', 'onExitCodes': preempted},
                {'action': 'FailJob', 'onPodConditions': evicted},
            ]
        },
        'template': {'spec': pod},
    }


def _pod(options, rest, nodes: int, selector, limits) -> dict:
    container = {
        'name': 'jaxinv',
        'image': options.image,
        'command': ['bash', '-c', _command(options, rest, nodes)],
    }
    if options.xla_flags != 'none':
        flags = xla_flags.text(options.xla_flags)
        container['env'] = [{'name': 'XLA_FLAGS', 'value': flags}]
    container['resources'] = {'limits': limits}
    pod = {
        'restartPolicy': 'Never',  # required by podFailurePolicy
        'terminationGracePeriodSeconds': options.lead,
        'nodeSelector': selector,
        'containers': [container],
    }
    if options.claim:
        container['volumeMounts'] = [{'name': 'work', 'mountPath': '/runs'}]
        claim = {'claimName': options.claim}
        pod['volumes'] = [{'name': 'work', 'persistentVolumeClaim': claim}]
    return pod


def _command(options, rest, nodes: int) -> str:
    """A shell line. GPU processes need a coordinator and an index; on TPUs JAX finds both."""
    command = f'exec python -m jaxinv.launch {shlex.join(rest)}'
    if options.gpu and nodes > 1:
        first = f'{options.name}-workers-0-0.{options.name}'
        command += f' --coordinator={first}:{PORT} --num_processes={nodes}'
        command += ' --process_id="$JOB_COMPLETION_INDEX"'
    return command


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
