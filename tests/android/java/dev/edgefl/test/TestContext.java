// SPDX-License-Identifier: Apache-2.0
package dev.edgefl.test;

import android.app.ActivityManager;
import android.app.job.JobInfo;
import android.app.job.JobScheduler;
import android.content.Context;
import android.net.ConnectivityManager;
import android.os.BatteryManager;
import android.os.PowerManager;
import java.io.File;
import java.util.ArrayList;
import java.util.List;

/** An app's context with a folder of its own. */
public final class TestContext extends Context {
    private final File files;
    public final List<JobInfo> jobs = new ArrayList<>();

    public TestContext(String files) {
        this.files = new File(files);
    }

    @Override
    public Context getApplicationContext() {
        return this;
    }

    @Override
    public File getFilesDir() {
        return files;
    }

    @Override
    public Object getSystemService(String name) {
        switch (name) {
            case Context.BATTERY_SERVICE:
                return new BatteryManager();
            case Context.POWER_SERVICE:
                return new PowerManager();
            case Context.CONNECTIVITY_SERVICE:
                return new ConnectivityManager();
            case Context.ACTIVITY_SERVICE:
                return new ActivityManager();
            case Context.JOB_SCHEDULER_SERVICE:
                return new JobScheduler() {
                    @Override
                    public int schedule(JobInfo job) {
                        jobs.add(job);
                        return RESULT_SUCCESS;
                    }
                };
            default:
                throw new IllegalArgumentException(name);
        }
    }
}
