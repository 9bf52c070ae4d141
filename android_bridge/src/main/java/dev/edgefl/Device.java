// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

/** The state of the device, and the app's ear. Python calls it between steps, on the training thread. */
public interface Device {
    /**
     * JSON with whatever can be read: {@code charging}, {@code metered}, {@code power_save} (true or false),
     * {@code battery} (percent), {@code thermal} (Android's word for it), {@code free_storage} and
     * {@code free_memory} (bytes). What is left out cannot be read here.
     */
    String reading();

    /** Whether training must stop now. It is checkpointed and goes on another time. */
    boolean stopped();

    /** Told what happens, as JSON with an {@code event}: a round begun, a pause, an update accepted. */
    void notify(String event);
}
