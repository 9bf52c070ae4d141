// SPDX-License-Identifier: Apache-2.0
package android.app.job;

/** Takes jobs. */
public abstract class JobScheduler {
    public static final int RESULT_SUCCESS = 1;

    public abstract int schedule(JobInfo job);
}
