// SPDX-License-Identifier: Apache-2.0
package dev.edgefl.host;

/** What the doubles in this folder ask of the Python that hosts the JVM. */
public interface Host {
    /** Result as String, byte[], Boolean or Integer; a {@code String[]} of one message is an exception's. */
    Object call(String module, String function, Object[] arguments);

    /** A model file on the host's own engine. */
    int load(String engine, String path);

    void unload(int model);

    String version(String engine);

    /** Names of signatures, or a signature's inputs (0) or outputs (1). */
    String[] signatures(int model);

    String[] names(int model, String signature, int side);

    /** An output's type, as the engine calls it, then its shape. */
    String[] output(int model, String signature, String name);

    /** Contents of the outputs asked for, of inputs' contents. */
    byte[][] run(int model, String signature, String[] inputs, byte[][] contents, String[] outputs);

    /** Set by the Python side before anything else is used. */
    final class Here {
        private static volatile Host host;

        private Here() {}

        public static void set(Host one) {
            host = one;
        }

        public static Host get() {
            if (host == null) {
                throw new IllegalStateException("no Python hosts this JVM");
            }
            return host;
        }
    }
}
