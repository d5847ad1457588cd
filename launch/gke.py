"""Kubernetes: a JobSet on TPU slices or GPU nodes of a GKE cluster.

  python launch/gke.py --name=NAME --image=IMAGE --tpu=tpu-v5-lite-podslice --topology=8x8 \\
      --claim=VOLUME_CLAIM -- --config=pti_multi_id --workdir=/runs/RUN
  python launch/gke.py --name=NAME --image=IMAGE --gpu=nvidia-h100-80gb --nodes=4 \\
      --chips-per-node=8 --claim=VOLUME_CLAIM -- --config=pti_multi_id --workdir=/runs/RUN

Prints the manifest with --dry-run, else gives it to `kubectl apply`. The cluster needs the JobSet
controller. One process for each node. The claim, writable from all nodes, is mounted at /runs. A
pod that is evicted gets SIGTERM and --lead seconds, saves and ends with exit code 75; that, and
losing a node, restart the set without counting; other failures do so --restarts times.
"""

import json
import math
import re
import shlex
import subprocess
import sys

import common
import xla_flags

PORT = 8476  # of the coordinator, on GPU nodes; on TPUs JAX takes its own


def make_parser():
    parser = common.parser(__doc__)
    parser.add_argument('--name', required=True)
    parser.add_argument(
        '--image', required=True, help='with jaxinv and JAX for the chips installed'
    )
    chips = parser.add_mutually_exclusive_group(required=True)
    chips.add_argument('--tpu', help='gke-tpu-accelerator, e.g. tpu-v5-lite-podslice')
    chips.add_argument('--gpu', help='gke-accelerator, e.g. nvidia-h100-80gb')
    parser.add_argument('--topology', help='of a TPU slice, e.g. 8x8')
    parser.add_argument('--slices', type=common.positive, default=1, help='TPU slices')
    parser.add_argument('--nodes', type=common.positive, default=1, help='GPU nodes')
    parser.add_argument('--chips-per-node', type=common.positive, default=4)
    parser.add_argument('--claim', help='PersistentVolumeClaim that all nodes can write')
    parser.add_argument('--spot', action='store_true')
    parser.add_argument('--lead', type=common.positive, default=120, help='seconds to save in')
    parser.add_argument('--restarts', type=int, default=3)
    xla_flags.add_option(parser)
    return parser


def main(argv) -> int:
    parser = make_parser()
    options, rest = common.parse(parser, argv)
    if options.tpu and not re.fullmatch(r'\d+(x\d+){1,2}', options.topology or ''):
        parser.error('--tpu needs --topology, e.g. 8x8')
    if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', options.name):
        parser.error('--name may hold small letters, digits and -, 40 at most')
    text = manifest(options, rest)
    if options.dry_run:
        print(text, end='')
        return 0
    return subprocess.run(['kubectl', 'apply', '-f', '-'], input=text, text=True).returncode


def manifest(options, rest) -> str:
    """The JobSet as YAML. Strings are written as JSON's, which are YAML's too."""
    if options.tpu:
        chips = math.prod(map(int, options.topology.split('x')))
        nodes = max(1, chips // options.chips_per_node)
        resource, per_node = 'google.com/tpu', min(chips, options.chips_per_node)
        selector = {
            'cloud.google.com/gke-tpu-accelerator': options.tpu,
            'cloud.google.com/gke-tpu-topology': options.topology,
        }
        replicas = options.slices
    else:
        nodes, replicas = options.nodes, 1
        resource, per_node = 'nvidia.com/gpu', options.chips_per_node
        selector = {'cloud.google.com/gke-accelerator': options.gpu}
    if options.spot:
        selector['cloud.google.com/gke-spot'] = 'true'
    lines = _JOBSET.format(
        name=options.name,
        restarts=options.restarts,
        replicas=replicas,
        nodes=nodes,
        preempted=common.PREEMPTED,
        lead=options.lead,
        image=json.dumps(options.image),
        command=json.dumps(_command(options, rest, nodes)),
        resource=resource,
        per_node=per_node,
    )
    lines = lines.replace('ANNOTATIONS\n', _ONE_POOL if options.tpu else '')
    lines = lines.replace('SELECTOR', _indented(14, [f'{k}: {_q(v)}' for k, v in selector.items()]))
    lines = lines.replace('            ENV\n', _environment(options))
    mounts, volumes = '', ''
    if options.claim:
        mounts = '              volumeMounts:\n              - {name: work, mountPath: /runs}\n'
        volumes = (
            '            volumes:\n            - name: work\n'
            f'              persistentVolumeClaim: {{claimName: {_q(options.claim)}}}\n'
        )
    return lines.replace('            MOUNTS\n', mounts).replace('            VOLUMES\n', volumes)


def _command(options, rest, nodes):
    """A shell line; on GPU nodes the processes are told where they are, TPUs tell JAX."""
    command = f'exec python -m jaxinv.launch {shlex.join(rest)}'
    if options.gpu and nodes > 1:
        first = f'{options.name}-workers-0-0.{options.name}'
        command += f' --coordinator={first}:{PORT} --num_processes={nodes}'
        command += ' --process_id="$JOB_COMPLETION_INDEX"'
    return command


def _environment(options):
    if options.xla_flags == 'none':
        return ''
    flags = _q(xla_flags.text(options.xla_flags))
    return f'              env:\n              - {{name: XLA_FLAGS, value: {flags}}}\n'


def _indented(spaces, lines):
    return f'\n{" " * spaces}'.join(lines)


_q = json.dumps

_ONE_POOL = """\
  annotations:
    # All pods of a slice in one node pool, which is one slice.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
"""

_JOBSET = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
ANNOTATIONS
spec:
  network:
    enableDNSHostnames: true
  failurePolicy:
    maxRestarts: {restarts}
    rules:
    # What podFailurePolicy below names: saved and preempted, or evicted.
    - action: RestartJobSetAndIgnoreMaxRestarts
      onJobFailureReasons:
      - PodFailurePolicy
  replicatedJobs:
  - name: workers
    replicas: {replicas}
    template:
      spec:
        parallelism: {nodes}
        completions: {nodes}
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes:
              containerName: jaxinv
              operator: In
              values: [{preempted}]
          - action: FailJob
            onPodConditions:
            - type: DisruptionTarget
              status: "True"
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: {lead}
            nodeSelector:
              SELECTOR
            containers:
            - name: jaxinv
              image: {image}
              command: ["bash", "-c", {command}]
            ENV
              resources:
                limits:
                  {resource}: {per_node}
            MOUNTS
            VOLUMES
"""


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
