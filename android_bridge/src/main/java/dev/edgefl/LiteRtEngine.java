// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.tensorflow.lite.DataType;
import org.tensorflow.lite.Interpreter;

/** TFLite files on LiteRT (the AAR {@code com.google.ai.edge.litert:litert}), XNNPACK included. */
public final class LiteRtEngine implements Engine {
    private final int threads;
    private final String version;
    private final Map<String, Interpreter> loaded = new HashMap<>();

    public LiteRtEngine(int threads) {
        this.threads = threads;
        this.version = org.tensorflow.lite.TensorFlowLite.runtimeVersion();
    }

    @Override
    public String describe() {
        StringBuilder out = new StringBuilder("{\"name\":\"litert\",\"version\":");
        Json.quote(out, version);
        return out.append(",\"target\":\"tflite\",\"delegate\":\"xnnpack\"}").toString();
    }

    @Override
    public synchronized byte[] run(String artifact, String signature, byte[] tensors) {
        try {
            return run(interpreter(artifact), signature, TensorPack.read(tensors));
        } catch (RuntimeException exc) {
            throw new EngineException("LiteRT " + version + " on " + artifact + ": " + exc.getMessage(), exc);
        }
    }

    @Override
    public synchronized void close() {
        for (Interpreter one : loaded.values()) {
            one.close();
        }
        loaded.clear();
    }

    private byte[] run(Interpreter interpreter, String signature, Map<String, Tensor> tensors) {
        String key = key(interpreter, signature);
        Map<String, Object> inputs = new HashMap<>();
        for (Map.Entry<String, Tensor> row : tensors.entrySet()) {
            inputs.put(row.getKey(), row.getValue().direct());
        }
        Map<String, Object> outputs = new HashMap<>();
        for (String name : interpreter.getSignatureOutputs(key)) {
            int bytes = interpreter.getOutputTensorFromSignature(name, key).numBytes();
            outputs.put(name, ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder()));
        }
        interpreter.runSignature(inputs, outputs, key);
        Map<String, Tensor> made = new LinkedHashMap<>();
        for (Map.Entry<String, Object> row : outputs.entrySet()) {
            org.tensorflow.lite.Tensor tensor = interpreter.getOutputTensorFromSignature(row.getKey(), key);
            ByteBuffer content = (ByteBuffer) row.getValue();
            content.rewind();
            made.put(row.getKey(), new Tensor(type(tensor.dataType()), shape(tensor.shape()), content));
        }
        return TensorPack.write(made);
    }

    private Interpreter interpreter(String artifact) {
        Interpreter known = loaded.get(artifact);
        if (known == null) {
            Interpreter.Options options = new Interpreter.Options();
            options.setNumThreads(threads);
            known = new Interpreter(new File(artifact), options);
            loaded.put(artifact, known);
        }
        return known;
    }

    /** The signature asked for, or the only one there is. */
    private static String key(Interpreter interpreter, String signature) {
        String[] keys = interpreter.getSignatureKeys();
        return keys.length == 1 ? keys[0] : signature;
    }

    private static long[] shape(int[] shape) {
        long[] sizes = new long[shape.length];
        for (int i = 0; i < shape.length; i++) {
            sizes[i] = shape[i];
        }
        return sizes;
    }

    private static Tensor.Type type(DataType type) {
        switch (type) {
            case FLOAT32:
                return Tensor.Type.F32;
            case INT32:
                return Tensor.Type.I32;
            case INT64:
                return Tensor.Type.I64;
            case INT16:
                return Tensor.Type.I16;
            case INT8:
                return Tensor.Type.I8;
            case UINT8:
                return Tensor.Type.U8;
            case BOOL:
                return Tensor.Type.BOOL;
            default:
                throw new PackException("LiteRT gives a tensor of type " + type);
        }
    }
}
