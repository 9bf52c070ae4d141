// SPDX-License-Identifier: Apache-2.0
package android.os;

/** The battery. */
public class BatteryManager {
    public static final int BATTERY_PROPERTY_CAPACITY = 4;

    public boolean isCharging() {
        return true;
    }

    public int getIntProperty(int id) {
        return id == BATTERY_PROPERTY_CAPACITY ? 80 : Integer.MIN_VALUE;
    }
}
