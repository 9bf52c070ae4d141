# SPDX-License-Identifier: Apache-2.0
"""`python -m edgefl`: the command line."""

from edgefl.cli import main

main()
