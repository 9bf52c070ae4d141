// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

/** What Python raised. The message begins with the error's name, as in {@code DataShape: ...}. */
public final class EdgeFlException extends RuntimeException {
    private static final long serialVersionUID = 1;

    public EdgeFlException(String message, Throwable cause) {
        super(message, cause);
    }
}
