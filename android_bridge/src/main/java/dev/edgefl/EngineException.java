// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

/** A model file that an engine refuses or cannot run. */
public final class EngineException extends RuntimeException {
    private static final long serialVersionUID = 1;

    public EngineException(String message, Throwable cause) {
        super(message, cause);
    }
}
