# SPDX-License-Identifier: Apache-2.0
"""`python -m edgefl.runtime.command`: `edgefl device` without what other commands need."""

from edgefl.runtime.command import main

main()
