// SPDX-License-Identifier: Apache-2.0
package org.tensorflow.lite;

import dev.edgefl.host.Host;

/** The library's version. */
public final class TensorFlowLite {
    private TensorFlowLite() {}

    public static String runtimeVersion() {
        return Host.Here.get().version("tflite");
    }
}
