// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import com.chaquo.python.PyException;
import com.chaquo.python.PyObject;
import com.chaquo.python.Python;
import java.io.File;
import java.util.Map;

/**
 * The door to edgefl's Python runtime. One folder is one device; a folder has one training at a time, in this
 * process or another. Python must have been started: see {@link AndroidPython}.
 */
public final class EdgeFl {
    private static final String MODULE = "edgefl.runtime.host";

    private final File folder;
    private final ExampleCipher cipher;
    private final PyObject module;

    /** @param folder what the device must remember; made if it is not there */
    public EdgeFl(File folder) {
        this(folder, null);
    }

    /** @param cipher seals the examples; the same for as long as they are kept */
    public EdgeFl(File folder, ExampleCipher cipher) {
        this.folder = folder;
        this.cipher = cipher;
        this.module = Python.getInstance().getModule(MODULE);
    }

    /**
     * Takes part in a server's rounds until it has no more work, the device may not train, or it is told to
     * stop. Blocks; training that is cut short goes on at the next call.
     *
     * @param server its URL
     * @param settings JSON: {@code {}} or any of {@code rounds}, {@code when}, {@code limits},
     *     {@code token}, {@code publisher_key}, {@code reach}
     * @return JSON: {@code rounds} with what became of each, {@code paused} with reasons, {@code finished}
     * @throws EdgeFlException if this device cannot train the model, or the server will not have it
     */
    public String takePart(String server, Engine engine, Device device, String settings) {
        return call("take_part", server, folder.getPath(), engine, device, settings, cipher).toString();
    }

    /**
     * Trains one round on a bundle in a file, without a server.
     *
     * @return the update's frame, as it would travel; empty if the device may not train now
     */
    public byte[] runRound(File bundle, Engine engine, Device device, String settings) {
        return call("run_round", bundle.getPath(), folder.getPath(), engine, device, settings, cipher)
                .toJava(byte[].class);
    }

    /**
     * Makes the store for a model's examples, or sees that there is one that fits it.
     *
     * @param bundle the model, such as an asset of the app
     */
    public void collectFor(File bundle) {
        call("collect_for", folder.getPath(), bundle.getPath(), cipher);
    }

    /**
     * Keeps one example to train on: inputs by name and labels as {@code y}, without the batch's dimension.
     * On return it survives a crash.
     *
     * @param key names whom or what it belongs to, so that it can be forgotten; may be empty
     * @return whether it is new
     */
    public boolean add(Map<String, Tensor> example, String key) {
        return call("add_example", folder.getPath(), TensorPack.write(example), key, cipher).toJava(Boolean.class);
    }

    /** Forgets the examples of a key and what was derived from them; returns how many. */
    public int forget(String key) {
        return call("forget_examples", folder.getPath(), key, cipher).toJava(Integer.class);
    }

    /** Why the device would not train now and what it did so far, as JSON. */
    public String status(Device device) {
        return call("device_status", folder.getPath(), device).toString();
    }

    /**
     * Replays the conformance vectors on this phone.
     *
     * @param vectors the folder {@code tests/conformance/vectors}, unpacked
     * @return a report in Markdown, to be pasted into an issue
     */
    public String selfTest(File vectors, Engine engine) {
        return call("self_test", vectors.getPath(), engine).toString();
    }

    private PyObject call(String function, Object... arguments) {
        try {
            return module.callAttr(function, arguments);
        } catch (PyException exc) {
            throw new EdgeFlException(exc.getMessage(), exc);
        }
    }
}
