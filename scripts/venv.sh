#!/bin/sh
# Make a virtual environment: scripts/venv.sh PYTHON FOLDER
# Debian ships Python without venv's ensurepip; as root the missing package is installed, else it is named.
set -eu
python=$1 folder=$2
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
  echo "edgefl needs Python 3.10 or newer; $python is $("$python" --version 2>&1). Try: make PYTHON=python3.11" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq "$package"
  else
    echo "$python has no venv module. Install it with: sudo apt-get install $package" >&2
    exit 1
  fi
fi
"$python" -m venv "$folder"
