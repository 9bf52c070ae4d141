// SPDX-License-Identifier: Apache-2.0
package com.chaquo.python;

import dev.edgefl.host.Host;

/** A module, or a value that came out of one. */
public class PyObject implements AutoCloseable {
    private final String module;
    private final Object value;

    PyObject(String module, Object value) {
        this.module = module;
        this.value = value;
    }

    public PyObject callAttr(String key, Object... args) {
        Object made = Host.Here.get().call(module, key, args);
        if (made instanceof String[]) {
            throw new PyException(((String[]) made)[0]);
        }
        return new PyObject(null, made);
    }

    public <T> T toJava(Class<T> klass) {
        return klass.cast(value);
    }

    @Override
    public String toString() {
        return String.valueOf(value);
    }

    @Override
    public void close() {}
}
