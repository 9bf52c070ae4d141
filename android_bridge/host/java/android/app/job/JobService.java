// SPDX-License-Identifier: Apache-2.0
package android.app.job;

import android.app.Service;

/** A job's service. */
public abstract class JobService extends Service {
    public abstract boolean onStartJob(JobParameters params);

    public abstract boolean onStopJob(JobParameters params);

    public final void jobFinished(JobParameters params, boolean wantsReschedule) {
        params.finished.countDown();
    }
}
