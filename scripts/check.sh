#!/usr/bin/env bash
# Format, lint and types; `scripts/check.sh --fix` repairs what can be repaired.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == "--fix" ]]; then
    ruff format .
    ruff check --fix .
else
    ruff format --check .
    ruff check .
fi
mypy
