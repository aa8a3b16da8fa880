#!/usr/bin/env bash
# Every Molecule scenario, on boards that `default` starts and that are removed at the end.
# Options of Molecule name a single one: tests/molecule.sh --scenario-name default
set -euo pipefail
cd "$(dirname "$0")/.."
export SANDBOX=test
# Molecule ends with what it has removed: which tests failed is told once more after that.
TESTS_FAILED=$(mktemp)
export TESTS_FAILED
trap 'cat "$TESTS_FAILED" >&2; rm "$TESTS_FAILED"' EXIT
# What an interrupted run left: its boards, and Molecule's belief that they are there.
python -m sandbox down --keep-cache
molecule reset -s default >/dev/null
if [ $# = 0 ]; then set -- --all; fi
molecule test --no-command-borders "$@"
