# SPDX-License-Identifier: Apache-2.0
"""What others send for the same update: frameworks from their releases, methods from their papers."""
