// SPDX-License-Identifier: Apache-2.0
package ai.onnxruntime;

import dev.edgefl.host.Host;
import java.nio.ByteBuffer;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;

/** A loaded model. */
public class OrtSession implements AutoCloseable {
    private static final String MAIN = "";

    private final int model;

    OrtSession(String path) throws OrtException {
        model = Host.Here.get().load("onnx", path);
    }

    /** As much as is used. */
    public static class SessionOptions implements AutoCloseable {
        public void setIntraOpNumThreads(int numThreads) throws OrtException {}

        @Override
        public void close() {}
    }

    public Result run(Map<String, OnnxTensor> inputs) throws OrtException {
        Host host = Host.Here.get();
        String[] names = inputs.keySet().toArray(new String[0]);
        byte[][] contents = new byte[names.length][];
        for (int i = 0; i < names.length; i++) {
            ByteBuffer content = inputs.get(names[i]).content.duplicate();
            contents[i] = new byte[content.remaining()];
            content.get(contents[i]);
        }
        String[] outputs = host.names(model, MAIN, 1);
        byte[][] made = host.run(model, MAIN, names, contents, outputs);
        Map<String, OnnxValue> values = new LinkedHashMap<>();
        for (int i = 0; i < outputs.length; i++) {
            String[] row = host.output(model, MAIN, outputs[i]);
            long[] shape = new long[row.length - 2];
            for (int axis = 0; axis < shape.length; axis++) {
                shape[axis] = Long.parseLong(row[axis + 2]);
            }
            ByteBuffer content = ByteBuffer.allocateDirect(made[i].length);
            content.put(made[i]).rewind();
            values.put(outputs[i], new OnnxTensor(content, new TensorInfo(OnnxJavaType.valueOf(row[0]), shape)));
        }
        return new Result(values);
    }

    @Override
    public void close() throws OrtException {
        Host.Here.get().unload(model);
    }

    /** What came of a run. */
    public static class Result implements AutoCloseable, Iterable<Map.Entry<String, OnnxValue>> {
        private final Map<String, OnnxValue> values;

        Result(Map<String, OnnxValue> values) {
            this.values = values;
        }

        @Override
        public Iterator<Map.Entry<String, OnnxValue>> iterator() {
            return values.entrySet().iterator();
        }

        @Override
        public void close() {}
    }
}
