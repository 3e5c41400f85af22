#!/usr/bin/env bash
# Builds the documentation site into build/site, in an environment with the extra `docs`. A broken link is an error.
#
#   scripts/docs.sh            build
#   scripts/docs.sh serve      show it on this machine
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH=. python scripts/docs_pages.py build/docs
cp docs/mkdocs.yml build/
if [[ "${1:-}" == serve ]]; then
    exec zensical serve -f build/mkdocs.yml
fi
zensical build --strict --clean -f build/mkdocs.yml
