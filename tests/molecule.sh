#!/usr/bin/env bash
# Every Molecule scenario, on boards that `default` starts and that are removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
export SANDBOX=test
# What an interrupted run left: its boards, and Molecule's belief that they are there.
python -m sandbox down --keep-cache
molecule reset -s default >/dev/null
exec molecule test --all --no-command-borders "$@"
