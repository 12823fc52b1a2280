#!/usr/bin/env bash
# Runs the plugin inside a real LeRobot, against a policy server with the bundled nano-so101.
#
#   check.sh                  makes an environment with LeRobot 0.4.4 (a few minutes), and removes it at the end
#   check.sh PYTHON           uses the environment of this Python, in which LeRobot is installed
#
# The server runs in the repository's own .venv, or where MOLMOACT2 says that the command molmoact2 is.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$scratch"' EXIT
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HOME="$scratch/hf"

python=${1:-}
if [ -z "$python" ]; then
    python3 -m venv "$scratch/env"
    python="$scratch/env/bin/python"
    # The CPU builds, where there are any.
    torch=$(grep -E '^torch(vision)?==' "$here/check-requirements.txt")
    cpu=https://download.pytorch.org/whl/cpu
    "$python" -m pip install --quiet --no-deps $(sed 's/$/+cpu/' <<< "$torch") 2>/dev/null ||
        "$python" -m pip install --quiet --no-deps --extra-index-url $cpu $(sed 's/$/+cpu/' <<< "$torch") 2>/dev/null ||
        "$python" -m pip install --quiet --no-deps $(sed '/^torch=/s/$/+cpu/' <<< "$torch")
    grep -vE '^torch(vision)?==' "$here/check-requirements.txt" > "$scratch/others.txt"
    "$python" -m pip install --quiet --no-deps -r "$scratch/others.txt"
    packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # A torchvision for CUDA cannot load its operators beside a torch without. LeRobot calls none, but they must exist.
    "$python" -c 'import torchvision' 2>/dev/null || cat > "$packages/sitecustomize.py" <<'PYTHON'
import torch

for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
PYTHON
    # The client needs little of what molmoact2 requires, and what it needs is there.
    echo "$root/src" > "$packages/molmoact2_sources.pth"
fi
"$python" -m pip install --quiet --no-deps --editable "$here"

"${MOLMOACT2:-$root/.venv/bin/molmoact2}" serve nano-so101 --port 0 --threads 1 > "$scratch/server.log" 2>&1 &
server=$!
for _ in $(seq 300); do
    port=$(sed -n 's/.*listening on .*port \([0-9]*\).*/\1/p' "$scratch/server.log")
    [ -z "$port" ] || break
    kill -0 "$server" 2>/dev/null || { cat "$scratch/server.log"; exit 1; }
    sleep 0.2
done
cd "$scratch"
"$python" "$here/check.py" "ws://127.0.0.1:$port" 2> "$scratch/check.log" | grep -E '^(found|equal|saved|recorded|evaluated) ' ||
    { tail -40 "$scratch/check.log"; exit 1; }
