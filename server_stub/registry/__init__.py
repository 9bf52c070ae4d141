# SPDX-License-Identifier: Apache-2.0
"""What is decided about versions: promoted, pinned, restored; and whether rounds go on."""
