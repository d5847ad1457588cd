#!/usr/bin/env bash
# The tables of docs/results.md on the benchmark set:
#
#     bash benchmarks/results.sh FOLDER [TABLE...]
#
# Every table is one command of the launcher, with budgets for two CPU cores; all methods of a table
# start from the same pivots, of 60 steps, but for the true ones of figure15. A rerun goes on where it
# was. FOLDER/times.txt gets the seconds.
set -euo pipefail

out=$(realpath -m "$1")
shift
tables=${*:-portraits edits consistency baselines figure16 figure17 again figure3 tau figure7 generated \
  figure15 animals}
mkdir -p "$out"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

launch() { python -m jaxinv.launch "$@"; }

# pivots NAME PICTURES [OPTION...]: FOLDER/NAME/pivots.npz, from which the methods start.
pivots() {
  launch --config=sam:w --workdir="$out/$1" --config.data.images="$2" --config.pivot.num_steps=60 \
    --config.pivot.alex_fraction=0.85 "--config.edits=()" "${@:3}"
}

# evaluate NAME PICTURES METHODS [OPTION...]
evaluate() {
  launch --config=evaluate --workdir="$out/$1" --config.data.images="$2" --config.methods="$3" "${@:4}"
}

set_of_portraits() { pivots portraits_pivots benchmark:portraits; }
set_of_generated() { pivots generated_pivots benchmark:generated --config.data.limit=8; }

# Main table: reconstruction.
search="pivot.num_steps=60&pivot.alex_fraction=0.85"  # of the pivots, and of a second inversion
methods() {  # of the pivots in $1
  local p="start=$1&$search" s="sam.num_steps=40" t="tune.num_steps=40"
  echo "w=w?$p,w_plus=w_plus?$p&$s,pti=pti?$p&$t,pti_free=pti?$p&$t&locality.weight=0"
}
portraits() {
  set_of_portraits
  evaluate portraits benchmark:portraits "$with_sam" --config.statistics.reference=w_plus
}
generated() {
  set_of_generated
  evaluate generated benchmark:generated "$(methods "$out/generated_pivots")" \
    --config.data.limit=8 --config.statistics.reference=w_plus
}
animals() {  # by the generator of faces: far outside its domain
  local few="--config.data.limit=4 --config.data.align=none"
  pivots animals_pivots benchmark:animals $few
  local p="start=$out/animals_pivots&sam.num_steps=40"
  evaluate animals benchmark:animals "w=w?$p,w_plus=w_plus?$p,f6=f6?$p" \
    $few "--config.measure.identity=()" --config.statistics.reference=w_plus
}
with_sam="$(methods "$out/portraits_pivots"),sam=sam?start=$out/portraits_pivots&sam.num_steps=40"

# Further baselines, and the packaged encoder: its codes, and a search in W+ from them and from the mean.
baselines() {
  set_of_portraits
  local p="start=$out/portraits_pivots&sam.num_steps=40" e=mobile_stylegan_ffhq
  evaluate baselines benchmark:portraits "w_plus=w_plus?$p,gaussian_prior=gaussian_prior?$p,\
encoder=encoder:$e,hybrid=hybrid:$e?sam.num_steps=40,from_mean=w_plus?start=mean&sam.num_steps=40"
}

# PTI's table 2: edits of the runs of a table before. edits_of NAME METHODS [OPTION...]
edits_of() {
  launch --config=evaluate_edits --workdir="$out/$1_edits" --config.methods="$2" \
    --config.runs="$out/$1" \
    --config.data.images=benchmark:portraits --config.statistics.reference=w_plus \
    "--config.edits=('yaw=2','smile=1.2','yaw=2,smile=1.2')" "--config.measure.equal=('yaw=10',)" \
    "--config.measure.identity=('sface',)" "--config.measure.consistency=()" \
    "--config.measure.curves=()" "${@:3}"
}
edits() {  # and identity at the same measured turn, and curves
  edits_of portraits "$with_sam" "--config.edits=('yaw=2/-2','smile=1.2','age=2','mouth_open=1.2',\
'eyes_closed=1','yaw=2,smile=1.2,age=2')" "--config.measure.equal=('yaw=-10/-5/5/10',)" \
    "--config.measure.curves=('yaw',)" "--config.measure.identity=('sface','dlib')"
}
# Latent editing consistency: W and PTI invert their edited pictures again, with their own pivots.
consistency() {
  local p="start=$out/portraits_pivots&$search"
  launch --config=evaluate_edits --workdir="$out/consistency" --config.runs="$out/portraits" \
    --config.data.images=benchmark:portraits --config.statistics.reference=w \
    --config.methods="w=w?$p,pti=pti?$p&tune.num_steps=40" "--config.edits=('yaw=2',)" \
    "--config.measure.equal=()" "--config.measure.curves=()" "--config.measure.identity=('sface',)" \
    "--config.measure.consistency=('yaw=2',)"
}

# Ablations, on the first two portraits, with the regulariser in every fourth step.
two="--config.data.limit=2"
fourth="locality.interval=4&locality.weight=0.4"
figure16() {
  set_of_portraits
  local s="tune.num_steps=25&$fourth" p="start=$out/portraits_pivots" m="tune.pivot_learning_rate=0.005"
  local plus="pivot.space=w_plus&$search"
  local abc="pti=pti?$p&$s,B=pti?$plus&$s,C=pti?start=mean&$s"
  evaluate figure16 benchmark:portraits "$abc,\
D=pti?start=mean&$s&$m,E=pti?start=random:0&$s,F=pti?start=random:0&$s&$m,along=pti?$p&$s&$m" $two
  edits_of figure16 "$abc" $two --config.statistics.reference=pti
}
figure17() {  # alpha of the regulariser
  set_of_portraits
  local p="start=$out/portraits_pivots&tune.num_steps=25&$fourth" a=locality.alpha
  evaluate figure17 benchmark:portraits "pti=pti?$p,a8=pti?$p&$a=8,a60=pti?$p&$a=60,\
a120=pti?$p&$a=120,none=pti?$p&locality.weight=0"
}
again() {
  set_of_portraits
  local p="start=$out/portraits_pivots&tune.num_steps=40&$fourth"
  evaluate again benchmark:portraits "pti=pti_multi_id?$p,\
again=w?generator=row:pti&$search" $two
}
# PTI's figures 14 and 15: drift against the number of identities, of generated faces with the codes
# that they were made from. The set is in the cache once another command has read it, as `generated`.
figure15() {
  local n rows="" truth p
  local cache="${JAXINV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/jaxinv}"
  truth=$(ls -t "$cache"/benchmark/generated-*/pivots.npz 2> /dev/null | head -n 1 || true)
  p="start=${truth:?generated comes first}&tune.num_steps=20&$fourth"
  for n in 1 4 12; do
    rows="$rows,with_$n=pti_multi_id?$p&data.limit=$n"
    rows="$rows,without_$n=pti_multi_id?$p&data.limit=$n&locality.weight=0"
  done
  evaluate figure15 benchmark:generated "${rows#,}" --config.data.limit=12
}

# SAM, figure 3: one space for all of a picture, and edits of it.
figure3() {
  set_of_portraits
  local p="start=$out/portraits_pivots&sam.num_steps=40"
  local methods="w_plus=w_plus?$p,f4=f4?$p,f6=f6?$p,f8=f8?$p,f10=f10?$p"
  evaluate figure3 benchmark:portraits "$methods" $two
  edits_of figure3 "$methods" $two
}

# SAM: the threshold, appendices 6.5 and 6.6; figure 7, quality against time. The maps are those of
# the main table, whose seconds (measure_*) are to be added; those of AlexNet are measured.
maps=""
measured() {
  newest() { ls -t "$out"/portraits/methods/sam-*/regions.npz 2> /dev/null | head -n 1 || true; }
  maps=$(newest)
  [ "$maps" ] || portraits
  maps=$(newest)
  : "${maps:?portraits made no maps}"
}
tau() {
  measured
  local p="start=$out/portraits_pivots&sam.num_steps=40&invertibility.maps=$maps" t=invertibility.tau
  local rows="sam=sam?$p,t15=sam?$p&$t=0.15,t20=sam?$p&$t=0.2,t35=sam?$p&$t=0.35"
  rows="$rows,no_refinement=sam:no_refinement?$p"
  evaluate tau benchmark:portraits "$rows,\
alex=sam:lpips_alex?start=$out/portraits_pivots&sam.num_steps=40" $two
  edits_of tau "$rows" $two --config.statistics.reference=sam
}
figure7() {
  measured
  local p="start=$out/portraits_pivots&invertibility.maps=$maps" n=sam.num_steps
  evaluate figure7 benchmark:portraits "s100=sam?$p&$n=100,s40=sam?$p&$n=40,s15=sam?$p&$n=15" $two
}

for table in $tables; do
  begin=$SECONDS
  "$table"
  echo "$table $((SECONDS - begin)) s" | tee -a "$out/times.txt"
done
