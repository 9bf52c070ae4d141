# SPDX-License-Identifier: Apache-2.0
"""The main job told on real data: watches learn exercises, and no motion data leaves a watch."""
