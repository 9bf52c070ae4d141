// SPDX-License-Identifier: Apache-2.0
package android.os;

/** The system. */
public class Build {
    /** Its release. */
    public static class VERSION {
        public static final int SDK_INT = Integer.getInteger("android.sdk", 29);
    }
}
