// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

/** Bytes that are no tensors, or tensors that the layout cannot hold. */
public final class PackException extends IllegalArgumentException {
    private static final long serialVersionUID = 1;

    public PackException(String message) {
        super(message);
    }
}
