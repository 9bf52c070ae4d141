// SPDX-License-Identifier: Apache-2.0
package com.chaquo.python;

/** Chaquopy's, on a JVM whose host is Python already (chaquo.com/chaquopy/doc/current/java.html). */
public class Python {
    private static Python instance;

    private Python() {}

    /** Where Python's files are. */
    public abstract static class Platform {}

    public static synchronized boolean isStarted() {
        return instance != null;
    }

    public static synchronized void start(Platform platform) {
        if (instance != null) {
            throw new IllegalStateException("Python already started");
        }
        instance = new Python();
    }

    public static synchronized Python getInstance() {
        if (instance == null) {
            throw new IllegalStateException("Python not started");
        }
        return instance;
    }

    public PyObject getModule(String name) {
        return new PyObject(name, null);
    }
}
