// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

/** What runs a model file. Python calls it; only text and bytes cross. */
public interface Engine extends AutoCloseable {
    /** JSON: {@code {"name": "litert", "version": "1.4.0", "target": "tflite", "delegate": "xnnpack"}}. */
    String describe();

    /**
     * Runs a file on named tensors.
     *
     * @param artifact the file's path; the same path is always the same file
     * @param signature the graph's name, where a file holds several
     * @param tensors every input by the file's own name, as {@link TensorPack} writes them
     * @return every output by the file's own name, written so too
     */
    byte[] run(String artifact, String signature, byte[] tensors);

    /** Frees what was loaded. */
    @Override
    void close();
}
