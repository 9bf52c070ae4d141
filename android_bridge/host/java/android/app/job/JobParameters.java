// SPDX-License-Identifier: Apache-2.0
package android.app.job;

import java.util.concurrent.CountDownLatch;

/** One run of a job. */
public class JobParameters {
    /** Not Android's: counted down by jobFinished. */
    public final CountDownLatch finished = new CountDownLatch(1);

    private final int id;

    /** Not Android's. */
    public JobParameters(int id) {
        this.id = id;
    }

    public int getJobId() {
        return id;
    }
}
