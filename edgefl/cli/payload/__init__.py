# SPDX-License-Identifier: Apache-2.0
"""`edgefl bench payload`: what updates cost to send, and what it costs in accuracy to make them small."""
