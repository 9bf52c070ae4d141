// SPDX-License-Identifier: Apache-2.0
package android.app.job;

import android.content.ComponentName;

/** What a job waits for. */
public class JobInfo {
    public static final int NETWORK_TYPE_UNMETERED = 2;

    private final Builder made;

    private JobInfo(Builder made) {
        this.made = made;
    }

    public boolean isRequireCharging() {
        return made.charging;
    }

    public boolean isRequireDeviceIdle() {
        return made.idle;
    }

    public int getNetworkType() {
        return made.network;
    }

    public boolean isPersisted() {
        return made.persisted;
    }

    public long getIntervalMillis() {
        return made.interval;
    }

    public ComponentName getService() {
        return made.service;
    }

    /** Builds one. */
    public static final class Builder {
        private final ComponentName service;
        private boolean charging;
        private boolean idle;
        private boolean persisted;
        private int network;
        private long interval;

        public Builder(int jobId, ComponentName jobService) {
            service = jobService;
        }

        public Builder setRequiresCharging(boolean requiresCharging) {
            charging = requiresCharging;
            return this;
        }

        public Builder setRequiresDeviceIdle(boolean requiresDeviceIdle) {
            idle = requiresDeviceIdle;
            return this;
        }

        public Builder setRequiredNetworkType(int networkType) {
            network = networkType;
            return this;
        }

        public Builder setPeriodic(long intervalMillis) {
            interval = intervalMillis;
            return this;
        }

        public Builder setPersisted(boolean isPersisted) {
            persisted = isPersisted;
            return this;
        }

        public JobInfo build() {
            return new JobInfo(this);
        }
    }
}
