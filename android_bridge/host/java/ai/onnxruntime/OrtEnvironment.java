// SPDX-License-Identifier: Apache-2.0
package ai.onnxruntime;

import dev.edgefl.host.Host;

/** onnxruntime's, whose kernels are those of the Python that hosts this JVM. */
public final class OrtEnvironment {
    private static final OrtEnvironment ONLY = new OrtEnvironment();

    private OrtEnvironment() {}

    public static OrtEnvironment getEnvironment() {
        return ONLY;
    }

    public String getVersion() {
        return Host.Here.get().version("onnx");
    }

    public OrtSession createSession(String modelPath, OrtSession.SessionOptions options)
            throws OrtException {
        return new OrtSession(modelPath);
    }
}
