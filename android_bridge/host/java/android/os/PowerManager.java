// SPDX-License-Identifier: Apache-2.0
package android.os;

/** Power. */
public final class PowerManager {
    public boolean isPowerSaveMode() {
        return false;
    }

    /** Since API 29. */
    public int getCurrentThermalStatus() {
        return 1;
    }
}
