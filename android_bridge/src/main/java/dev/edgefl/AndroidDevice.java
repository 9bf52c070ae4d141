// SPDX-License-Identifier: Apache-2.0
package dev.edgefl;

import android.app.ActivityManager;
import android.content.Context;
import android.net.ConnectivityManager;
import android.os.BatteryManager;
import android.os.Build;
import android.os.PowerManager;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;

/** What Android says about itself. Readings only: whether they allow training is decided in Python. */
public final class AndroidDevice implements Device {
    /** PowerManager's thermal statuses, 0 to 6. */
    private static final String[] THERMAL = {
        "none", "light", "moderate", "severe", "critical", "emergency", "shutdown",
    };

    private final Context context;
    private final AtomicBoolean stop;
    private final Consumer<String> listener;

    /**
     * @param stop set by whoever wants training to end
     * @param listener gets every event, on the training thread
     */
    public AndroidDevice(Context context, AtomicBoolean stop, Consumer<String> listener) {
        this.context = context.getApplicationContext();
        this.stop = stop;
        this.listener = listener;
    }

    @Override
    public String reading() {
        StringBuilder out = new StringBuilder("{");
        BatteryManager battery = (BatteryManager) context.getSystemService(Context.BATTERY_SERVICE);
        PowerManager power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
        ConnectivityManager network =
                (ConnectivityManager) context.getSystemService(Context.CONNECTIVITY_SERVICE);
        ActivityManager activity = (ActivityManager) context.getSystemService(Context.ACTIVITY_SERVICE);
        ActivityManager.MemoryInfo memory = new ActivityManager.MemoryInfo();
        activity.getMemoryInfo(memory);
        int level = battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY);
        out.append("\"charging\":").append(battery.isCharging());
        // Integer.MIN_VALUE, or 0 on old releases, is Android's way of not knowing.
        if (level > 0) {
            out.append(",\"battery\":").append(level);
        }
        out.append(",\"metered\":").append(network.isActiveNetworkMetered());
        out.append(",\"power_save\":").append(power.isPowerSaveMode());
        out.append(",\"free_storage\":").append(context.getFilesDir().getUsableSpace());
        out.append(",\"free_memory\":").append(Math.max(0, memory.availMem - memory.threshold));
        if (Build.VERSION.SDK_INT >= 29) {
            int status = power.getCurrentThermalStatus();
            if (status >= 0 && status < THERMAL.length) {
                out.append(",\"thermal\":\"").append(THERMAL[status]).append('"');
            }
        }
        return out.append('}').toString();
    }

    @Override
    public boolean stopped() {
        return stop.get();
    }

    @Override
    public void notify(String event) {
        listener.accept(event);
    }
}
