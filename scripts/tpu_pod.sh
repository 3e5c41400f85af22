#!/usr/bin/env bash
# t5x on all workers of a TPU slice; the processes find each other.
#
#   ssh-add ~/.ssh/google_compute_engine      # once: gcloud asks for it where there are several workers
#   TPU=my-slice ZONE=us-east5-b scripts/tpu_pod.sh setup
#   TPU=my-slice ZONE=us-east5-b scripts/tpu_pod.sh train --gin_file=gin_configs/residual_xxl.gin --gin.MODEL_DIR=gs://bucket/run
#
# `setup` copies this checkout to every worker, with changes that are not committed and new files that git does not
# ignore, and installs it with uv, which brings a Python where the image's own is too old (Ubuntu 22.04: 3.10). Anything
# else is run there as `t5x ...`.
# MODEL_DIR is in a bucket, or on a file system that all workers mount (Filestore, another NFS).
set -euo pipefail
cd "$(dirname "$0")/.."
: "${TPU:?the name of the slice}" "${ZONE:?its zone}" "${1:?setup, or a command of t5x}"

gcloud=(gcloud compute tpus tpu-vm)
workers=(--zone="$ZONE" --worker=all) # at once, however many: batches are for `gcloud alpha`

if [[ $1 == setup ]]; then
    files=$(mktemp -d)
    trap 'rm -rf "$files"' EXIT
    cp "$(git rev-parse --git-path index)" "$files/index"
    export GIT_INDEX_FILE=$files/index # the checkout's own stays as it is
    git add --all
    git archive --format=tar.gz --output="$files/jax_prompts.tar.gz" "$(git write-tree)"
    "${gcloud[@]}" scp "$files/jax_prompts.tar.gz" "$TPU:" "${workers[@]}"
    "${gcloud[@]}" ssh "$TPU" "${workers[@]}" --command='
        set -e
        mkdir -p jax_prompts && tar -xzf jax_prompts.tar.gz -C jax_prompts && cd jax_prompts
        export PATH="$HOME/.local/bin:$PATH"
        if ! command -v uv > /dev/null; then
            curl -LsSf https://astral.sh/uv/install.sh | UV_UNMANAGED_INSTALL="$HOME/.local/bin" sh
            command -v uv > /dev/null || { echo "$HOSTNAME: install uv, https://docs.astral.sh/uv" >&2; exit 1; }
        fi
        uv venv --quiet --clear --python 3.11
        uv pip install --quiet -r requirements.txt -e ".[tpu]"'
else
    printf -v line '%q ' "$@"
    exec "${gcloud[@]}" ssh "$TPU" "${workers[@]}" --command="cd jax_prompts && .venv/bin/t5x $line"
fi
