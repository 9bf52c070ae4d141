// SPDX-License-Identifier: Apache-2.0
package android.app;

/** Memory. */
public class ActivityManager {
    /** Bytes free, and how many the system wants kept so. */
    public static class MemoryInfo {
        public long availMem;
        public long threshold;
    }

    public void getMemoryInfo(MemoryInfo outInfo) {
        outInfo.availMem = 3L << 30;
        outInfo.threshold = 1L << 30;
    }
}
