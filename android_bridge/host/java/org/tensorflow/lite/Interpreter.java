// SPDX-License-Identifier: Apache-2.0
package org.tensorflow.lite;

import dev.edgefl.host.Host;
import java.io.File;
import java.nio.ByteBuffer;
import java.util.Map;

/** LiteRT's, whose kernels are those of the Python that hosts this JVM. */
public class Interpreter implements AutoCloseable {
    private final int model;

    /** As much as is used. */
    public static class Options {
        public Options setNumThreads(int numThreads) {
            return this;
        }
    }

    public Interpreter(File modelFile, Options options) {
        model = Host.Here.get().load("tflite", modelFile.getPath());
    }

    public String[] getSignatureKeys() {
        return Host.Here.get().signatures(model);
    }

    public String[] getSignatureInputs(String signatureKey) {
        return Host.Here.get().names(model, signatureKey, 0);
    }

    public String[] getSignatureOutputs(String signatureKey) {
        return Host.Here.get().names(model, signatureKey, 1);
    }

    public Tensor getOutputTensorFromSignature(String outputName, String signatureKey) {
        String[] row = Host.Here.get().output(model, signatureKey, outputName);
        DataType type = DataType.valueOf(row[0]);
        int[] shape = new int[row.length - 2];
        for (int i = 0; i < shape.length; i++) {
            shape[i] = Integer.parseInt(row[i + 2]);
        }
        int bytes = Integer.parseInt(row[1]);
        return new Tensor() {
            @Override
            public DataType dataType() {
                return type;
            }

            @Override
            public int[] shape() {
                return shape;
            }

            @Override
            public int numBytes() {
                return bytes;
            }
        };
    }

    public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String signatureKey) {
        if (inputs == null || inputs.isEmpty()) {
            throw new IllegalArgumentException("Input error: Inputs should not be null or empty.");
        }
        String[] names = inputs.keySet().toArray(new String[0]);
        byte[][] contents = new byte[names.length][];
        for (int i = 0; i < names.length; i++) {
            contents[i] = bytes((ByteBuffer) inputs.get(names[i]));
        }
        String[] wanted = outputs.keySet().toArray(new String[0]);
        byte[][] made = Host.Here.get().run(model, signatureKey, names, contents, wanted);
        for (int i = 0; i < wanted.length; i++) {
            ((ByteBuffer) outputs.get(wanted[i])).put(made[i]);
        }
    }

    @Override
    public void close() {
        Host.Here.get().unload(model);
    }

    private static byte[] bytes(ByteBuffer buffer) {
        if (!buffer.isDirect()) {
            throw new IllegalArgumentException("Input error: a ByteBuffer must be direct.");
        }
        byte[] content = new byte[buffer.remaining()];
        buffer.duplicate().get(content);
        return content;
    }
}
