# SPDX-License-Identifier: Apache-2.0
"""Versions measured by devices on examples they hold out: who is asked, and what they found."""
