// SPDX-License-Identifier: Apache-2.0
package android.content;

import java.io.File;

/** As much of Android as the bridge uses. */
public abstract class Context {
    public static final String BATTERY_SERVICE = "batterymanager";
    public static final String POWER_SERVICE = "power";
    public static final String CONNECTIVITY_SERVICE = "connectivity";
    public static final String ACTIVITY_SERVICE = "activity";
    public static final String JOB_SCHEDULER_SERVICE = "jobscheduler";

    public abstract Context getApplicationContext();

    public abstract Object getSystemService(String name);

    public abstract File getFilesDir();
}
