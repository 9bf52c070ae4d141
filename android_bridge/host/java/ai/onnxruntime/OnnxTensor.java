// SPDX-License-Identifier: Apache-2.0
package ai.onnxruntime;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** A tensor. */
public class OnnxTensor implements OnnxValue {
    final ByteBuffer content;
    private final TensorInfo info;

    OnnxTensor(ByteBuffer content, TensorInfo info) {
        this.content = content;
        this.info = info;
    }

    public static OnnxTensor createTensor(
            OrtEnvironment env, ByteBuffer data, long[] shape, OnnxJavaType type) throws OrtException {
        if (!data.isDirect()) {
            throw new OrtException("the double takes direct buffers only");
        }
        return new OnnxTensor(data.duplicate(), new TensorInfo(type, shape.clone()));
    }

    public TensorInfo getInfo() {
        return info;
    }

    public ByteBuffer getByteBuffer() {
        return content.duplicate().order(ByteOrder.nativeOrder());
    }

    @Override
    public void close() {}
}
