// SPDX-License-Identifier: Apache-2.0
package android.util;

/** The log. */
public final class Log {
    private Log() {}

    public static int i(String tag, String msg) {
        return 0;
    }

    public static int e(String tag, String msg, Throwable tr) {
        tr.printStackTrace();
        return 0;
    }
}
