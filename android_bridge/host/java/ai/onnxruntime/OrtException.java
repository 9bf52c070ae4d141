// SPDX-License-Identifier: Apache-2.0
package ai.onnxruntime;

/** What onnxruntime refuses. */
public class OrtException extends Exception {
    private static final long serialVersionUID = 1;

    public OrtException(String message) {
        super(message);
    }
}
