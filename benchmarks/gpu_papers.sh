#!/usr/bin/env bash
# Redoes tables of the papers on one large GPU, in pieces: unpacks the data, trains, attacks and writes JSON. Each call
# stops after MINUTES and leaves OUT/state.tar.gz, from which the next one goes on, on the same machine or another.
#
#     benchmarks/gpu_papers.sh DATA OUT [MINUTES] [ID ...]
#
# DATA     holds cifar10/ and mnist/ as `verigrad data fetch` makes them; or, packed, cifar-10-binary.tar.gz, or
#          unpack_cifar10.py, called as `python unpack_cifar10.py FOLDER` (figures on a JPEG copy are labelled so)
# OUT      nets, ledgers and OUT/gpu/results/*.json
# MINUTES  of this call, 24 by default
# ID       of `verigrad reproduce list`; by default those that say most, in that order
#
# SCALE=smoke tries the script itself, without a GPU and without data. VERIGRAD and PYTHON name other programs.
set -euo pipefail

if [ $# -lt 2 ]; then
  sed -n '2,16s/^# \{0,1\}//p' "$0"
  exit 2
fi
data=$1 out=$2 minutes=${3:-24}
shift $(($# < 3 ? $# : 3))
scale=${SCALE:-gpu} verigrad=${VERIGRAD:-verigrad} python=${PYTHON:-python}
if [ $# -eq 0 ]; then
  set -- sonet/table1 sonet/table4 sonet/interventions sonet/table2 sonet/table3 sonet/theorem gradient-regularization/table1
fi
end=$(($(date +%s) + minutes * 60))

mkdir -p "$out"
if [ -f "$out/state.tar.gz" ] && [ ! -d "$out/$scale" ]; then
  tar -xzf "$out/state.tar.gz" -C "$out"
fi
if [ "$scale" != smoke ]; then
  mkdir -p "$out/data"
  if [ ! -e "$out/data/cifar10" ]; then
    if [ -f "$data/unpack_cifar10.py" ]; then
      "$python" "$data/unpack_cifar10.py" "$out/data/cifar10"
    elif [ -f "$data/cifar-10-binary.tar.gz" ]; then
      mkdir -p "$out/data/cifar10"
      tar -xzf "$data/cifar-10-binary.tar.gz" -C "$out/data/cifar10"
    else
      ln -s "$(cd "$data/cifar10" && pwd)" "$out/data/cifar10"
    fi
  fi
  if [ ! -e "$out/data/mnist" ] && [ -d "$data/mnist" ]; then
    ln -s "$(cd "$data/mnist" && pwd)" "$out/data/mnist"
  fi
fi

status=0
for id in "$@"; do
  left=$((end - $(date +%s)))
  if [ -f "$out/$scale/results/${id//\//-}.json" ]; then
    continue
  elif [ "$left" -lt 5 ]; then
    echo "$id: not begun, the time is over. The same command goes on."
    continue
  fi
  "$verigrad" reproduce "$id" --scale "$scale" --data "$out/data" --out "$out" \
    --minutes "$(awk "BEGIN { print $left / 60 }")" || status=$?
done
mkdir -p "$out/$scale"
tar -czf "$out/state.tar.gz.part" -C "$out" "$scale"
mv "$out/state.tar.gz.part" "$out/state.tar.gz"
exit "$status"
