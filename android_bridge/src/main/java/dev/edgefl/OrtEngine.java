// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxValue;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;

/** ONNX files on onnxruntime (the AAR {@code com.microsoft.onnxruntime:onnxruntime-android}). */
public final class OrtEngine implements Engine {
    private final int threads;
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final Map<String, OrtSession> loaded = new HashMap<>();

    public OrtEngine(int threads) {
        this.threads = threads;
    }

    @Override
    public String describe() {
        StringBuilder out = new StringBuilder("{\"name\":\"onnxruntime-android\",\"version\":");
        Json.quote(out, environment.getVersion());
        return out.append(",\"target\":\"onnx\"}").toString();
    }

    @Override
    public synchronized byte[] run(String artifact, String signature, byte[] tensors) {
        try {
            return run(session(artifact), TensorPack.read(tensors));
        } catch (OrtException | RuntimeException exc) {
            throw new EngineException("onnxruntime on " + artifact + ": " + exc.getMessage(), exc);
        }
    }

    @Override
    public synchronized void close() {
        for (OrtSession one : loaded.values()) {
            try {
                one.close();
            } catch (OrtException exc) {
                throw new EngineException("onnxruntime does not close: " + exc.getMessage(), exc);
            }
        }
        loaded.clear();
    }

    private byte[] run(OrtSession session, Map<String, Tensor> tensors) throws OrtException {
        Map<String, OnnxTensor> inputs = new HashMap<>();
        try {
            for (Map.Entry<String, Tensor> row : tensors.entrySet()) {
                Tensor one = row.getValue();
                OnnxTensor made =
                        OnnxTensor.createTensor(environment, one.direct(), one.shape(), type(one.type));
                inputs.put(row.getKey(), made);
            }
            try (OrtSession.Result result = session.run(inputs)) {
                return TensorPack.write(outputs(result));
            }
        } finally {
            for (OnnxTensor one : inputs.values()) {
                one.close();
            }
        }
    }

    private static Map<String, Tensor> outputs(OrtSession.Result result) {
        Map<String, Tensor> made = new LinkedHashMap<>();
        for (Map.Entry<String, OnnxValue> row : result) {
            OnnxTensor tensor = (OnnxTensor) row.getValue();
            TensorInfo info = tensor.getInfo();
            made.put(row.getKey(), new Tensor(type(info.type), info.getShape(), tensor.getByteBuffer()));
        }
        return made;
    }

    private OrtSession session(String artifact) throws OrtException {
        OrtSession known = loaded.get(artifact);
        if (known == null) {
            try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
                options.setIntraOpNumThreads(threads);
                known = environment.createSession(artifact, options);
            }
            loaded.put(artifact, known);
        }
        return known;
    }

    private static final Tensor.Type[] TYPES = {
        Tensor.Type.F32, Tensor.Type.F64, Tensor.Type.F16, Tensor.Type.I8, Tensor.Type.I16, Tensor.Type.I32,
        Tensor.Type.I64, Tensor.Type.U8, Tensor.Type.BOOL,
    };
    private static final OnnxJavaType[] THEIRS = {
        OnnxJavaType.FLOAT, OnnxJavaType.DOUBLE, OnnxJavaType.FLOAT16, OnnxJavaType.INT8, OnnxJavaType.INT16,
        OnnxJavaType.INT32, OnnxJavaType.INT64, OnnxJavaType.UINT8, OnnxJavaType.BOOL,
    };

    private static OnnxJavaType type(Tensor.Type type) {
        for (int i = 0; i < TYPES.length; i++) {
            if (TYPES[i] == type) {
                return THEIRS[i];
            }
        }
        throw new PackException("onnxruntime takes no tensors of type " + type);
    }

    private static Tensor.Type type(OnnxJavaType type) {
        for (int i = 0; i < THEIRS.length; i++) {
            if (THEIRS[i] == type) {
                return TYPES[i];
            }
        }
        throw new PackException("onnxruntime gives a tensor of type " + type);
    }
}
