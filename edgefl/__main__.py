# SPDX-License-Identifier: Apache-2.0
"""`python -m edgefl`: the command line; on a device that has its own command only, that one."""

from importlib.util import find_spec

if find_spec("edgefl.cli") is not None:
    from edgefl.cli import main
else:
    from edgefl.runtime.command import main

main()
