#!/bin/sh
# Puts the pinned uv into .bootstrap, whatever this machine has: nothing is installed outside the clone.
set -eu
UV_VERSION=0.13.9
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "sn17 needs Python 3.11 or newer as $PYTHON; set PYTHON=/path/to/python3.11" >&2
    exit 1
}
mkdir -p .bootstrap
if "$PYTHON" -m venv .bootstrap 2>/dev/null; then
    .bootstrap/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
elif command -v uv >/dev/null 2>&1; then
    mkdir -p .bootstrap/bin
    ln -sf "$(command -v uv)" .bootstrap/bin/uv
else
    echo "this Python cannot make virtual environments: install python3-venv (Debian, Ubuntu) or uv" >&2
    exit 1
fi
touch .bootstrap/bin/uv
