// SPDX-License-Identifier: Apache-2.0
package com.chaquo.python;

/** A Python exception on its way through Java. */
public class PyException extends RuntimeException {
    private static final long serialVersionUID = 1;

    public PyException(String detailMessage) {
        super(detailMessage);
    }
}
