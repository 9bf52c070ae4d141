// SPDX-License-Identifier: Apache-2.0
package ai.onnxruntime;

/** Type and shape. */
public class TensorInfo {
    public final OnnxJavaType type;
    final long[] shape;

    TensorInfo(OnnxJavaType type, long[] shape) {
        this.type = type;
        this.shape = shape;
    }

    public long[] getShape() {
        return shape.clone();
    }
}
