#!/usr/bin/env bash
# Every Molecule scenario, on boards that `default` starts and that are removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
export SANDBOX=test
exec molecule test --all "$@"
